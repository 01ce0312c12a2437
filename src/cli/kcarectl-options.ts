// The options of kcarectl. What is to be done is chosen by options, not by sub-commands, as its users know it.
import { Command, InvalidArgumentError, Option } from 'commander';
import { patchTypes, type UserspacePatchType } from '../agent/index.js';
import { KcareError } from '../base/errors.js';
import { formatHelp } from './kcarectl-help.js';
import {
  addKernelOptions,
  kernelActionNames,
  kernelActions,
  type KernelAction,
  type KernelCliOptions,
} from './kernel-options.js';
import {
  addPolicyOptions,
  policyActionNames,
  policyActions,
  type PolicyAction,
  type PolicyOptions,
} from './policy-options.js';
import { processId, processIds } from './process-ids.js';

export interface KcarectlOptions extends PolicyOptions, KernelCliOptions {
  readonly libUpdate?: true;
  readonly libInfo?: true;
  readonly libPatchInfo?: true;
  readonly libUnload?: true;
  readonly libSymbols?: number;
  readonly libCvelist?: true;
  readonly vex?: true;
  readonly oval?: true;
  readonly metrics?: true;
  readonly doctor?: true;
  /** File or directory. */
  readonly output?: string;
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

/** What src/cli/scanner-commands.ts does. */
export type ReportKind = 'cve-list' | 'vex' | 'oval' | 'metrics' | 'doctor';

export type KcarectlAction =
  | { readonly kind: 'kernel'; readonly kernel: KernelAction }
  | { readonly kind: 'update'; readonly types: readonly UserspacePatchType[] | 'configured' }
  | { readonly kind: 'policy'; readonly policy: PolicyAction }
  | { readonly kind: 'unload' | 'info' | 'patch-info' }
  | { readonly kind: ReportKind }
  | { readonly kind: 'symbols'; readonly pid: number; readonly directory: string }
  | { readonly kind: 'import-key'; readonly path: string }
  | { readonly kind: 'patch'; readonly pids: readonly number[]; readonly files: readonly string[] }
  | { readonly kind: 'unpatch'; readonly pids: readonly number[] }
  | { readonly kind: 'list'; readonly pids: readonly number[] | undefined };

const defaultWaitSeconds = 5;
const longestWaitSeconds = 24 * 3600;

export function kcarectlProgram(version: string): Command {
  return addPolicyOptions(addKernelOptions(new Command('kcarectl')))
    .argument('[words...]')
    .option(
      '--lib-update',
      'Fetch the newest patches and apply them to all processes that run an object which they patch.',
    )
    .option('--lib-info', 'Print, as JSON, which processes are patched.')
    .option('--lib-patch-info', 'Print, as JSON, which vulnerabilities the applied patches fix.')
    .option('--lib-unload', 'Put the original code back into all processes.')
    .option(
      '--lib-symbols <PID>',
      'Write the patched code of this process into files that gdb can load, and print the commands for that.',
      processId,
    )
    .option(
      '--lib-cvelist',
      'Print the vulnerabilities that are fixed in all running processes that they concern, one a line, and write them to /var/cache/kcare/libcare_cvelist. What is not fixed everywhere is named on standard error, with the processes.',
    )
    .option(
      '--vex',
      'Print an OpenVEX document: for each vulnerability and package, whether it is fixed here.',
    )
    .option(
      '--oval',
      'Print OVAL definitions for oscap: a package is vulnerable unless it is new enough or the list of --lib-cvelist names the vulnerability.',
    )
    .option('--metrics', 'Print metrics in the text format of Prometheus.')
    .option(
      '--doctor',
      'Collect what support needs, without secrets, and send it to the server of REGISTRATION_URL or PATCH_SERVER; where that does not work, leave it in /root/cl-report.',
    )
    .option(
      '--output <PATH>',
      'With --lib-symbols: the directory for the files (default: this one). With --vex, --oval and --metrics: the file to write, as a whole or not at all, instead of printing; a device or pipe is written to.',
    )
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
    .exitOverride();
}

/** What is to be done. Throws USAGE unless it is exactly one thing. */
export function parseAction(options: KcarectlOptions, words: readonly string[]): KcarectlAction {
  const actions = [...chosenActions(options), ...actionInWords(words, options.pid)];
  const [action] = actions;
  if (action === undefined || actions.length > 1) {
    throw new KcareError(
      'USAGE',
      `Give exactly one of --lib-update, --lib-info, --lib-patch-info, --lib-unload, --lib-symbols, --lib-cvelist, --vex, --oval, --metrics, --doctor, --userspace-update, --import-key, ${policyActionNames.join(', ')}, ${kernelActionNames.join(', ')}, patch, unpatch, info.`,
    );
  }
  if (options.dryRun === true && !changesProcesses(action)) {
    throw new KcareError(
      'USAGE',
      '--dry-run goes with --lib-update, --lib-smart-update, --lib-auto-update, --userspace-update, --lib-unload, patch and unpatch.',
    );
  }
  if (options.jitter !== undefined && !(action.kind === 'policy' && action.policy.kind === 'auto-update'))
    throw new KcareError('USAGE', '--jitter and --no-jitter go with --lib-auto-update.');
  if (options.output !== undefined && !['symbols', 'vex', 'oval', 'metrics'].includes(action.kind))
    throw new KcareError('USAGE', '--output goes with --lib-symbols, --vex, --oval and --metrics.');
  if (options.pid !== undefined && !looksAtProcesses(action))
    throw new KcareError('USAGE', '--pid goes with what looks at single processes, not with this.');
  return action;
}

/** What can be done with some of the processes; the other actions are about the host. */
function looksAtProcesses(action: KcarectlAction): boolean {
  const kinds = ['info', 'patch-info', 'cve-list', 'vex', 'list'];
  return changesProcesses(action) || kinds.includes(action.kind);
}

function changesProcesses(action: KcarectlAction): boolean {
  const kind = action.kind === 'policy' ? action.policy.kind : action.kind;
  return ['update', 'unload', 'patch', 'unpatch', 'smart-update', 'auto-update'].includes(kind);
}

function chosenActions(options: KcarectlOptions): KcarectlAction[] {
  const actions: KcarectlAction[] = [];
  if (options.libUpdate) actions.push({ kind: 'update', types: ['libs'] });
  if (options.userspaceUpdate !== undefined)
    actions.push({ kind: 'update', types: typesOf(options.userspaceUpdate) });
  if (options.libUnload) actions.push({ kind: 'unload' });
  if (options.libInfo) actions.push({ kind: 'info' });
  if (options.libPatchInfo) actions.push({ kind: 'patch-info' });
  if (options.libSymbols !== undefined)
    actions.push({ kind: 'symbols', pid: options.libSymbols, directory: options.output ?? '.' });
  if (options.libCvelist) actions.push({ kind: 'cve-list' });
  if (options.vex) actions.push({ kind: 'vex' });
  if (options.oval) actions.push({ kind: 'oval' });
  if (options.metrics) actions.push({ kind: 'metrics' });
  if (options.doctor) actions.push({ kind: 'doctor' });
  for (const policy of policyActions(options)) actions.push({ kind: 'policy', policy });
  for (const kernel of kernelActions(options)) actions.push({ kind: 'kernel', kernel });
  if (options.importKey !== undefined) actions.push({ kind: 'import-key', path: options.importKey });
  return actions;
}

/** `patch PID... FILE...`, `unpatch PID...`, `info [PID...]`; process ids may also be given by --pid. */
function actionInWords(
  [verb, ...operands]: readonly string[],
  named: readonly number[] = [],
): KcarectlAction[] {
  if (verb === undefined) return [];
  const isId = (word: string): boolean => /^[1-9]\d{0,9}$/.test(word);
  const numbers = operands.findIndex((word) => !isId(word));
  const ids = (numbers < 0 ? operands : operands.slice(0, numbers)).map(Number);
  const files = numbers < 0 ? [] : operands.slice(numbers);
  const pids = [...named, ...ids];
  switch (verb) {
    case 'patch':
      if (pids.length === 0 || files.length === 0)
        throw new KcareError('USAGE', 'Name processes and patches: kcarectl patch PID... FILE...');
      return [{ kind: 'patch', pids, files }];
    case 'unpatch':
      if (pids.length === 0 || files.length > 0)
        throw new KcareError('USAGE', 'Name processes by their ids: kcarectl unpatch PID...');
      return [{ kind: 'unpatch', pids }];
    case 'info':
      if (files.length > 0) throw new KcareError('USAGE', `"${files[0] ?? ''}" is not a process id.`);
      return [{ kind: 'list', pids: pids.length > 0 ? pids : undefined }];
    default:
      throw new KcareError('USAGE', `"${verb}" is no command; there are patch, unpatch and info.`);
  }
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
