// The text of `kcarectl --help`, in the order of a manual page.
import type { Command, Help } from 'commander';

const width = 80;
const indent = 7;

const sections: readonly (readonly [string, string])[] = [
  [
    'FILES',
    `/etc/sysconfig/kcare/kcare.conf
  Configuration, KEY=value lines: PATCH_SERVER, PREFIX, STICKY_PATCH, STICKY_PATCHSET, UPDATE_DELAY, USERSPACE_PATCHES, HTTP_PROXY, HTTPS_PROXY and others.
/etc/sysconfig/kcare/keys/
  Trusted OpenPGP keys.
/var/cache/kcare/
  Verified patches.
/var/cache/kcare/userspace/blacklist, /var/lib/libcare/blacklist
  Programs that are never patched; only the first of the two that exists counts. One type:pattern a line. "path:" is the whole path of the program and "filename:" its last part, both with * and ?; "regex:" is a POSIX extended regular expression for the whole path.
/var/log/kcarectl.log
  What was done, as JSON lines.
All of them must belong to root and must not be writable by others.`,
  ],
  [
    'ENVIRONMENT',
    `KCARE_ROOT
  The same as --root.
http_proxy, https_proxy, no_proxy
  Proxies, in lower or upper case, where the configuration names none.`,
  ],
  [
    'EXIT STATUS',
    `0
  Done; no process was left behind. Blacklisted processes do not count.
1
  Failed.
2
  Refused, because it would be unsafe or is not trusted; nothing was changed.
4
  Some processes were left as they were; the output says which and why.
64
  Wrong options.`,
  ],
  [
    'EXAMPLES',
    `kcarectl --import-key publisher.asc
  Trust a publisher of patches, once.
kcarectl --lib-update --dry-run
  See what would be patched.
kcarectl --lib-update --wait 60
  Patch everything; try for a minute where a process is busy.
kcarectl --lib-patch-info | jq -r '.result[].patches[].cve' | sort -u
  All vulnerabilities that are fixed in running processes.
kcarectl --lib-unload --pid 4711
  Take the patches out of one process.`,
  ],
];

/** Lays out the page from the options of `command`, so that the page cannot lack one. */
export function formatHelp(command: Command, helper: Help): string {
  const options = helper
    .visibleOptions(command)
    .map((option) => `${option.flags}\n${wrap(option.description, indent + 4)}`)
    .map((text) => ' '.repeat(indent) + text);
  return `${[
    section('NAME', 'kcarectl - patch the libraries of running processes without restarting them'),
    section('SYNOPSIS', synopsis),
    section('DESCRIPTION', description),
    `OPTIONS\n${options.join('\n\n')}`,
    ...sections.map(([title, text]) => section(title, text)),
  ].join('\n\n')}\n`;
}

const synopsis = `kcarectl --lib-update [--dry-run] [--wait SECONDS] [--pid PID...]
kcarectl --lib-unload [--dry-run] [--wait SECONDS] [--pid PID...]
kcarectl --lib-info | --lib-patch-info [--pid PID...]
kcarectl --userspace-update [PATCHES]
kcarectl --import-key PATH`;

const description = `kcarectl finds the processes that run vulnerable library code, fetches signed patches for exactly that code and replaces the vulnerable functions in memory. A process keeps its pid, its connections and its data; its threads stand still for moments. Patches are cumulative, and --lib-unload puts the original code back at any time.

A process is patched as a whole or not at all. One that cannot be patched safely now is left as it is and reported with the reason.`;

/** Indents a section; lines that begin with two blanks describe the line above them. */
function section(title: string, text: string): string {
  const lines = text.split('\n').map((line) => {
    if (line === '') return '';
    return line.startsWith('  ') ? wrap(line.trim(), indent + 4) : wrap(line, indent);
  });
  return `${title}\n${lines.join('\n')}`;
}

function wrap(text: string, left: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && left + line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.map((one) => ' '.repeat(left) + one).join('\n');
}
