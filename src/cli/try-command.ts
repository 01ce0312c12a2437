// `kcare-build try`: try a patch in processes of its own.
import { createHash } from 'node:crypto';
import path from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { exitCodes, KcareError } from '../base/errors.js';
import { readSafeFile, safeDirectory } from '../base/safe-files.js';
import { readPatch } from '../patchfile/index.js';
import {
  findObject,
  readNamedFile,
  tryPatch,
  type CommandResult,
  type TrialResult,
} from '../review/index.js';
import { manualPage } from './manual-page.js';
import { printJson, visible } from './print.js';

interface Flags {
  readonly object?: string;
  readonly work?: string;
  readonly trigger: readonly string[];
  readonly suite?: string;
  readonly wait: number;
  readonly json?: true;
}

/** The command; its action throws KcareError. */
export function tryCommand(): Command {
  return new Command('try')
    .description('try a patch in processes of its own')
    .argument('<file>', 'the patch file')
    .option(
      '--object <LIB>',
      'The shipped object (default: the one in the package of the archive that the patch names).',
    )
    .option(
      '--trigger <CMD>',
      'A shell command that ends with 1 where the fault is there and with 0 where it is not; repeatable.',
      (command: string, before: readonly string[]) => [...before, command],
      [],
    )
    .option('--suite <CMD>', 'A shell command, such as a test suite, whose exit status must stay the same.')
    .option('--wait <SECONDS>', 'How long a busy process is waited for (default: 10).', seconds, 10)
    .option(
      '--work <DIR>',
      'Where packages are unpacked (default: $KCARE_WORK, or .cache/build in the package).',
    )
    .option('--json', 'Print the result as JSON.')
    .configureHelp({ formatHelp: manualPage(page) })
    .action(tryOut);
}

const page = {
  name: 'kcare-build try - try a patch in processes of its own',
  synopsis: 'kcare-build try [--object LIB] [--trigger CMD]... [--suite CMD] [--wait SECONDS] [--json] FILE',
  description: `Loads LIB in a scratch process, applies FILE to it, unloads it, and compares all code and all mappings with what was there before, but for the size of the heap. A program is started itself, but waits before main.

Then each CMD runs twice, without the patch and with it. A trigger shows a fault: it has to end with 1 without the patch and with 0 with it. A suite has to end with the same status both times. What commands print goes to standard error.

Commands are run by /bin/sh, with LIB before the installed one by LD_LIBRARY_PATH. Every program that they start waits before its main until the patch is applied to it, if it has LIB loaded by then; what it forks later inherits the patch. A small library does that, which is preloaded by LD_PRELOAD; the run without the patch has it, too. So the patch is in effect from the first instruction of main, and no process is stopped or traced longer than the patch takes.

Not reached are programs that load LIB only later by dlopen(3), that change users by their mode (setuid), that are linked statically, or that begin with another environment. A command none of whose processes was patched does not pass.

A C library is of use only with its own loader. KCARE_LOADER is then the start of a command line: --trigger '$KCARE_LOADER ./check'. LD_LIBRARY_PATH stays as it is.

Only processes of the trial are touched. FILE is trusted because root names it: like those of kcarectl patch, it and its directories must belong to root and must not be writable by others.`,
  exit: `0
  Passed: applied and unloaded without a trace, each fault gone, the same status of the suite.
1
  A tool failed, or a file is missing, or no process could be started.
2
  Failed; the output says what. Or FILE is no patch, or not for LIB.
64
  Wrong options.`,
  examples: `kcare-build try patch.kpatch
kcare-build try --object ./libdemo.so --trigger './check' patch.kpatch
kcare-build try --suite 'make test' patch.kpatch`,
};

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 86_400))
    throw new InvalidArgumentError('It is not a number of seconds.');
  return value;
}

async function tryOut(file: string, { trigger, suite, wait, json, ...options }: Flags): Promise<void> {
  if (process.geteuid?.() !== 0)
    throw new KcareError('NOT_PERMITTED', 'Only root can try patches that nobody has signed.');
  await readNamedFile(file);
  await safeDirectory(path.dirname(file));
  const bytes = await readSafeFile(file);
  const patch = readPatch(bytes);
  const tell = (message: string): void => void process.stderr.write(`${visible(message)}\n`);
  const found = await findObject(patch, { ...options, onProgress: tell });
  if (found.shipped.buildId !== patch.buildId) {
    throw new KcareError(
      'BUILD_ID_MISMATCH',
      `${found.file} has build-id ${found.shipped.buildId}; the patch is for ${patch.buildId}.`,
    );
  }
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const result = await tryPatch({ patch, patchset: 'trial', sha256 }, found, {
    triggers: trigger,
    suite,
    waitMs: wait * 1000,
    onProgress: tell,
  });
  if (json === true) printJson(toJson(result));
  else process.stdout.write(trialText(result));
  process.exitCode = result.verdict === 'passed' ? exitCodes.done : exitCodes.refused;
}

function toJson({ verdict, scratch, triggers, suite }: TrialResult): object {
  const command = ({ processes, isAsExpected, ...rest }: CommandResult): object => ({
    ...rest,
    passed: isAsExpected,
    processes: processes.map(({ pid, report }) => ({ pid, result: report?.result, error: report?.error })),
  });
  return {
    verdict,
    scratch: {
      applied: scratch.applied.result,
      unloaded: scratch.unloaded?.result,
      pauseNs: scratch.applied.pauseNs,
      codeSize: scratch.codeSize,
      differences: scratch.differences,
      error: scratch.applied.error ?? scratch.unloaded?.error,
    },
    triggers: triggers.map(command),
    suite: suite && command(suite),
  };
}

function trialText({ verdict, scratch, triggers, suite }: TrialResult): string {
  const { applied, unloaded, differences, codeSize } = scratch;
  const reports = [applied, ...(unloaded ? [unloaded] : [])];
  const lines = [
    `Scratch process: ${reports.map(({ result }) => result).join(', ')}`,
    ...reports.flatMap(({ error }) => (error ? [`  ${error.message}`] : [])),
    differences.length === 0
      ? `  all ${codeSize} bytes of code and all mappings are as before`
      : '  not as before:',
    ...differences.map((difference) => `    ${difference}`),
    ...triggers.flatMap((one) => commandLines('Trigger', one)),
    ...(suite ? commandLines('Suite', suite) : []),
    verdict === 'passed' ? 'Passed.' : 'Failed.',
  ];
  return `${lines.map(visible).join('\n')}\n`;
}

function commandLines(what: 'Trigger' | 'Suite', result: CommandResult): string[] {
  const { command, before, after, processes, isAsExpected } = result;
  const meaning = what === 'Trigger' ? triggerMeaning(before, after) : suiteMeaning(before, after);
  const unpatched = processes.filter(({ report }) => report?.result !== 'applied');
  return [
    `${what}: ${command}`,
    `  exit status ${before} without the patch, ${after} with it: ${meaning}`,
    processes.length === 0
      ? '  no process of it had the object loaded before main: this shows nothing'
      : `  ${processes.length - unpatched.length} of ${processes.length} processes with the object were patched before main`,
    ...unpatched.map(
      ({ pid, report }) => `  process ${pid}: ${report?.error?.message ?? report?.result ?? 'not patched'}`,
    ),
    ...(isAsExpected ? [] : ['  not passed']),
  ];
}

function triggerMeaning(before: number, after: number): string {
  if (before === 1 && after === 0) return 'the fault is there, and the patch mends it';
  if (before !== 1) return 'the fault does not show without the patch (1 was expected)';
  return after === 1
    ? 'the fault is there with the patch, too'
    : 'something else goes wrong with the patch (0 was expected)';
}

function suiteMeaning(before: number, after: number): string {
  return before === after ? 'the same' : 'not the same';
}
