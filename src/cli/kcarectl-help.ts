// The text of `kcarectl --help`, in the order of a manual page.
import type { Command, Help } from 'commander';
import { optionsSection, section } from './manual-page.js';

const sections: readonly (readonly [string, string])[] = [
  [
    'FILES',
    `/etc/sysconfig/kcare/kcare.conf
  Configuration, KEY=value lines: PATCH_SERVER, PREFIX, STICKY_PATCH, STICKY_PATCHSET, UPDATE_DELAY, USERSPACE_PATCHES, HTTP_PROXY, HTTPS_PROXY and others.
/etc/sysconfig/kcare/libcare.state
  Whether LibCare is on.
/etc/sysconfig/kcare/hooks/before-update.d/, after-update.d/
  Programs that run before and after an update that changes processes. One that fails before keeps the update from being done.
/etc/sysconfig/kcare/keys/
  Trusted OpenPGP keys.
/var/cache/kcare/
  Verified patches.
/var/cache/kcare/userspace/blacklist, /var/lib/libcare/blacklist
  Programs that are never patched; only the first of the two that exists counts. One type:pattern a line. "path:" is the whole path of the program and "filename:" its last part, both with * and ?; "regex:" is a POSIX extended regular expression for the whole path.
/var/cache/kcare/libcare_cvelist
  The vulnerabilities that are fixed in all running processes that they concern, one a line; written after each change and by --lib-cvelist.
/etc/sysconfig/kcare/sysctl.conf
  Switches of single kernel fixes, set whenever a kernel patch was loaded.
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
    'SIGNALS',
    `SIGTERM, SIGINT
  While processes are changed: finish the process at hand, begin no other one, report all of them (exit status 4 if some were not reached). The second one ends kcarectl at once, which harms no process; the next run finishes what was begun.`,
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
kcarectl patch 4711 patchroot && kcarectl info 4711
  Apply what libcare-patch-make left in the directory patchroot.
kcarectl --lib-unload --pid 4711
  Take the patches out of one process.`,
  ],
];

const commands = `patch PID... FILE...
  Apply patch files, or all patches of a directory, to these processes, without a feed. Nobody has signed such files: they are trusted because root names them. They and the directories above must belong to root, and nobody else may be able to write there. libcare-patch-make makes such files.
unpatch PID...
  Put the original code back, wherever the patches came from.
info [PID...]
  List what is patched, and which functions; as JSON with --json.`;

/** Lays out the page from the options of `command`, so that the page cannot lack one. */
export function formatHelp(command: Command, helper: Help): string {
  return `${[
    section('NAME', 'kcarectl - patch the libraries of running processes without restarting them'),
    section('SYNOPSIS', synopsis),
    section('DESCRIPTION', description),
    section('COMMANDS', commands),
    optionsSection(command, helper),
    ...sections.map(([title, text]) => section(title, text)),
  ].join('\n\n')}\n`;
}

const synopsis = `kcarectl --lib-update [--dry-run] [--wait SECONDS] [--pid PID...]
kcarectl --lib-unload [--dry-run] [--wait SECONDS] [--pid PID...]
kcarectl --lib-auto-update [--jitter SECONDS | --no-jitter] [--dry-run]
kcarectl --lib-smart-update [--dry-run]
kcarectl --enable-libcare | --disable-libcare
kcarectl --blacklist-test PID|PATH
kcarectl --audit-rules
kcarectl --lib-info | --lib-patch-info [--pid PID...]
kcarectl --lib-symbols PID [--output DIR]
kcarectl --lib-cvelist [--pid PID...] [--json]
kcarectl --vex | --oval [--output FILE]
kcarectl --metrics [--output FILE] [--json]
kcarectl --doctor [--json]
kcarectl --userspace-update [PATCHES]
kcarectl --import-key PATH
kcarectl --update|--smart-update|--auto-update [--force] [--freezer MODE] [--prefix PREFIX]
kcarectl --unload [--force] [--freezer MODE]
kcarectl --info|--patch-info|--uname|--check|--status
kcarectl patch PID... FILE... [--dry-run] [--wait SECONDS]
kcarectl unpatch PID... [--dry-run] [--wait SECONDS]
kcarectl info [PID...] [--json]`;

const description = `kcarectl finds the processes that run vulnerable library code, fetches signed patches for exactly that code and replaces the vulnerable functions in memory. A process keeps its pid, its connections and its data; its threads stand still for moments. Patches are cumulative, and --lib-unload puts the original code back at any time.

A process is patched as a whole or not at all. One that cannot be patched safely now is left as it is and reported with the reason.`;
