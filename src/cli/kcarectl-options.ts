// The options of kcarectl. What is to be done is chosen by options, not by sub-commands, as its users know it.
import { Command, InvalidArgumentError, Option } from 'commander';
import { patchTypes, type UserspacePatchType } from '../agent/index.js';
import { KcareError } from '../base/errors.js';
import { formatHelp } from './kcarectl-help.js';

export interface KcarectlOptions {
  readonly libUpdate?: true;
  readonly libInfo?: true;
  readonly libPatchInfo?: true;
  readonly libUnload?: true;
  readonly importKey?: string;
  /** True when the types are left to the config. */
  readonly userspaceUpdate?: true | string;
  readonly dryRun?: true;
  /** Seconds. */
  readonly wait: number;
  readonly pid?: readonly number[];
  readonly root: string;
  readonly json?: true;
}

export type KcarectlAction =
  | { readonly kind: 'update'; readonly types: readonly UserspacePatchType[] | 'configured' }
  | { readonly kind: 'unload' | 'info' | 'patch-info' }
  | { readonly kind: 'import-key'; readonly path: string };

const defaultWaitSeconds = 5;
const longestWaitSeconds = 24 * 3600;

export function kcarectlProgram(version: string): Command {
  return new Command('kcarectl')
    .option(
      '--lib-update',
      'Fetch the newest patches and apply them to all processes that run an object which they patch.',
    )
    .option('--lib-info', 'Print, as JSON, which processes are patched.')
    .option('--lib-patch-info', 'Print, as JSON, which vulnerabilities the applied patches fix.')
    .option('--lib-unload', 'Put the original code back into all processes.')
    .option(
      '--userspace-update [PATCHES]',
      'Like --lib-update, for a list of patch types; only "libs" is available. Without a list, USERSPACE_PATCHES of the configuration counts.',
    )
    .option(
      '--import-key <PATH>',
      'Trust the OpenPGP public key in this file. Compare the fingerprint that is printed with the one that the publisher of the patches names.',
    )
    .option(
      '--dry-run',
      'With an update or --lib-unload: say for each process what would happen, and change nothing.',
    )
    .option(
      '--wait <SECONDS>',
      `How long to come back to processes that are busy in a function which is to be replaced (default: ${defaultWaitSeconds}).`,
      seconds,
      defaultWaitSeconds,
    )
    .option(
      '--pid <PID...>',
      'Only these processes; several ids with blanks or commas between them.',
      processIds,
    )
    .addOption(
      new Option('--root <DIR>', 'Use the configuration, keys, cache and log below this directory.')
        .env('KCARE_ROOT')
        .default('/'),
    )
    .option('--json', 'Print the result, and errors, as JSON.')
    .version(version, '--version', 'Print the version of kcarectl.')
    .helpOption('--help', 'Print this page.')
    .configureHelp({ formatHelp })
    .showHelpAfterError('See kcarectl --help.')
    .allowExcessArguments(false)
    .exitOverride();
}

/** What is to be done. Throws USAGE unless it is exactly one thing. */
export function parseAction(options: KcarectlOptions): KcarectlAction {
  const actions = chosenActions(options);
  const [action] = actions;
  if (action === undefined || actions.length > 1) {
    throw new KcareError(
      'USAGE',
      'Give exactly one of --lib-update, --lib-info, --lib-patch-info, --lib-unload, --userspace-update, --import-key.',
    );
  }
  if (options.dryRun === true && action.kind !== 'update' && action.kind !== 'unload') {
    throw new KcareError('USAGE', '--dry-run goes with --lib-update, --userspace-update or --lib-unload.');
  }
  return action;
}

function chosenActions(options: KcarectlOptions): KcarectlAction[] {
  const actions: KcarectlAction[] = [];
  if (options.libUpdate) actions.push({ kind: 'update', types: ['libs'] });
  if (options.userspaceUpdate !== undefined)
    actions.push({ kind: 'update', types: typesOf(options.userspaceUpdate) });
  if (options.libUnload) actions.push({ kind: 'unload' });
  if (options.libInfo) actions.push({ kind: 'info' });
  if (options.libPatchInfo) actions.push({ kind: 'patch-info' });
  if (options.importKey !== undefined) actions.push({ kind: 'import-key', path: options.importKey });
  return actions;
}

function typesOf(list: true | string): readonly UserspacePatchType[] | 'configured' {
  return list === true
    ? 'configured'
    : patchTypes(list, (problem) => new KcareError('USAGE', `--userspace-update: ${problem}.`));
}

function seconds(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value > longestWaitSeconds) {
    throw new InvalidArgumentError(`It is not a number of seconds up to ${longestWaitSeconds}.`);
  }
  return value;
}

/** One id, or several with commas between them. */
function processIds(text: string, previous: readonly number[] | undefined): number[] {
  if (!/^[1-9]\d{0,9}(,[1-9]\d{0,9})*$/.test(text))
    throw new InvalidArgumentError('It is not a list of process ids.');
  return [...(previous ?? []), ...text.split(',').map(Number)];
}
