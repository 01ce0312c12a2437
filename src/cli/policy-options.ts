// Options of kcarectl for updates by policy, for turning LibCare on and off, and for asking the blacklist.
import { type Command, InvalidArgumentError } from 'commander';

export interface PolicyOptions {
  readonly libAutoUpdate?: true;
  readonly libSmartUpdate?: true;
  readonly enableLibcare?: true;
  readonly disableLibcare?: true;
  readonly blacklistTest?: string;
  readonly auditRules?: true;
  /** Seconds; false: none; undefined: the usual. */
  readonly jitter?: number | false;
}

export type PolicyAction =
  | { readonly kind: 'auto-update'; readonly jitter: number | undefined }
  | { readonly kind: 'smart-update' }
  | { readonly kind: 'enable' | 'disable' | 'audit-rules' }
  | { readonly kind: 'blacklist-test'; readonly subject: string };

export const policyActionNames = [
  '--lib-auto-update',
  '--lib-smart-update',
  '--enable-libcare',
  '--disable-libcare',
  '--blacklist-test',
  '--audit-rules',
];

/** Where nobody watches, such as in cron, seconds. */
export const usualJitterSeconds = 120;
const longestJitterSeconds = 24 * 3600;

export function addPolicyOptions(command: Command): Command {
  return command
    .option(
      '--lib-auto-update',
      'Like --lib-update, for cron: obeys AUTO_UPDATE, AUTO_STICKY_PATCHSET and AUTO_UPDATE_DELAY, waits for a random time first, and prints nothing unless something was done or went wrong for the first time.',
    )
    .option(
      '--jitter <SECONDS>',
      `With --lib-auto-update: begin after a random part of this time (default: ${usualJitterSeconds}, on a terminal 0).`,
      jitterSeconds,
    )
    .option('--no-jitter', 'With --lib-auto-update: begin at once.')
    .option(
      '--lib-smart-update',
      'Like --lib-update, with patches from where UPDATE_POLICY says (the server, the cache, or the cache first), and with the AUTO_ keys, as at boot.',
    )
    .option(
      '--enable-libcare',
      'Turn LibCare on for good: stop the service, enable and start it, and write the periodic job. May be repeated.',
    )
    .option(
      '--disable-libcare',
      'Turn LibCare off for good: stop and disable the service, and patch nothing more. What is patched stays patched; see --lib-unload. May be repeated.',
    )
    .option(
      '--blacklist-test <PID|PATH>',
      'Say which line of which blacklist forbids patching this process, or this program. Exit status 0: none, 2: one does.',
    )
    .option(
      '--audit-rules',
      'Print the rules that keep the ptrace calls of this kcarectl out of the audit log, and nobody else\u2019s: the contents of /etc/audit/rules.d/kernelcare.rules.',
    );
}

export function policyActions(options: PolicyOptions): PolicyAction[] {
  const { jitter } = options;
  return [
    ...(options.libAutoUpdate
      ? [{ kind: 'auto-update', jitter: jitter === false ? 0 : jitter } as const]
      : []),
    ...(options.libSmartUpdate ? [{ kind: 'smart-update' } as const] : []),
    ...(options.enableLibcare ? [{ kind: 'enable' } as const] : []),
    ...(options.disableLibcare ? [{ kind: 'disable' } as const] : []),
    ...(options.auditRules ? [{ kind: 'audit-rules' } as const] : []),
    ...(options.blacklistTest === undefined
      ? []
      : [{ kind: 'blacklist-test', subject: options.blacklistTest } as const]),
  ];
}

function jitterSeconds(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value > longestJitterSeconds)
    throw new InvalidArgumentError(`It is not a number of seconds up to ${longestJitterSeconds}.`);
  return value;
}
