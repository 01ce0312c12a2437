// The options of kcarectl that concern the kernel, and the actions that they choose.
import { type Command, Option } from 'commander';
import { KcareError } from '../base/errors.js';
import type { Freezer } from '../agent/index.js';

export interface KernelCliOptions {
  readonly update?: true;
  readonly smartUpdate?: true;
  readonly autoUpdate?: true;
  readonly unload?: true;
  readonly info?: true;
  readonly patchInfo?: true;
  readonly uname?: true;
  readonly check?: true;
  readonly status?: true;
  readonly force?: true;
  readonly freezer?: Freezer;
  readonly prefix?: string;
  readonly test?: true;
  readonly setStickyPatch?: string;
  readonly setPatchType?: 'extra' | 'free' | 'default';
}

export type KernelAction =
  | {
      readonly kind:
        | 'update'
        | 'smart-update'
        | 'auto-update'
        | 'unload'
        | 'info'
        | 'patch-info'
        | 'uname'
        | 'check'
        | 'status';
    }
  | { readonly kind: 'sticky'; readonly value: string }
  /** Only to write the type down: with another action it is written before that. */
  | { readonly kind: 'patch-type' };

export const kernelActionNames = [
  '--update',
  '--smart-update',
  '--auto-update',
  '--unload',
  '--info',
  '--patch-info',
  '--uname',
  '--check',
  '--status',
  '--set-sticky-patch',
  '--set-patch-type',
] as const;

export function addKernelOptions(command: Command): Command {
  return command
    .option('-u, --update', 'Fetch the newest kernel patch and load it into the running kernel.')
    .option('--smart-update', 'Like --update, from where UPDATE_POLICY says. For the start of the machine.')
    .option('--auto-update', 'Like --update, if AUTO_UPDATE allows it. For cron.')
    .option('--unload', "Put the kernel's own code back.")
    .option('-i, --info', 'Say which kernel patch is loaded.')
    .option('--patch-info', 'List what the loaded kernel patch fixes.')
    .option('--uname', 'Print the release that the running kernel is worth.')
    .option('--check', 'Exit with 0 if there is a newer kernel patch than the loaded one, with 1 if not.')
    .option(
      '--status',
      'Exit with 0 if the newest kernel patch is loaded, 1 if none is, 2 if there is a newer one, 3 if this kernel cannot be patched.',
    )
    .option(
      '--force',
      'With an update or --unload: when tasks stay in old code until the end, change over all the same. The patch can then not be unloaded.',
    )
    .addOption(
      new Option(
        '--freezer <MODE>',
        'How long tasks may hold up a change of the kernel before it is turned back: none = 10 s, the kernel wakes no task; smart = 40 s, it wakes those in the way; full = 100 s, again and again (default: as PATCH_METHOD says).',
      ).choices(['none', 'full', 'smart']),
    )
    .option(
      '--prefix <PREFIX>',
      'With the kernel: use this feed of the patch server instead of PREFIX. Libraries follow PREFIX.',
    )
    .option('--test', 'The same as --prefix test.')
    .option(
      '--set-sticky-patch <DATE>',
      'Write STICKY_PATCH: use no patchset newer than this date (DDMMYY, DDMMYYYY, YYYY-mm-dd), and say which patchset that is. "" takes it out.',
    )
    .addOption(
      new Option(
        '--set-patch-type <TYPE>',
        'Write PATCH_TYPE: follow the feed of kernel patches of this type. default takes it out. Alone, or before an update that is given with it.',
      ).choices(['extra', 'free', 'default']),
    );
}

/** What of the kernel is to be done. Throws USAGE when an option goes with no action. */
export function kernelActions(options: KernelCliOptions): KernelAction[] {
  const chosen = (
    [
      'update',
      'smartUpdate',
      'autoUpdate',
      'unload',
      'info',
      'patchInfo',
      'uname',
      'check',
      'status',
    ] as const
  ).filter((name) => options[name]);
  const kinds = {
    update: 'update',
    smartUpdate: 'smart-update',
    autoUpdate: 'auto-update',
    unload: 'unload',
    info: 'info',
    patchInfo: 'patch-info',
    uname: 'uname',
    check: 'check',
    status: 'status',
  } as const;
  const changes = chosen.some((name) => /update|unload/i.test(name));
  if (!changes && (options.force || options.freezer !== undefined))
    throw new KcareError(
      'USAGE',
      '--force and --freezer go with --update, --smart-update, --auto-update, --unload.',
    );
  const { prefix, test, setStickyPatch, setPatchType } = options;
  const asksFeed = chosen.some((name) => /update|check|status/i.test(name));
  // R6: the feed that was named must not be left out without a word.
  if (!asksFeed && (test || prefix !== undefined))
    throw new KcareError(
      'USAGE',
      '--prefix and --test go with --update, --smart-update, --auto-update, --check, --status; libraries follow PREFIX of kcare.conf.',
    );
  if (test && prefix !== undefined && prefix !== 'test')
    throw new KcareError('USAGE', '--test and --prefix name different feeds.');
  return [
    ...chosen.map((name): KernelAction => ({ kind: kinds[name] })),
    ...(setStickyPatch === undefined ? [] : [{ kind: 'sticky' as const, value: setStickyPatch }]),
    ...(setPatchType === undefined || chosen.length > 0 ? [] : [{ kind: 'patch-type' as const }]),
  ];
}
