// `kcare-check`: whether this host, its kernel and its libraries are covered, and what to do.
import { Command, Option } from 'commander';
import { readSettings } from '../agent/agent.js';
import { version } from '../agent/version.js';
import { exitCodes } from '../base/errors.js';
import { checkCoverage, type Check, type Coverage } from '../checker/coverage.js';
import { manualPage } from './manual-page.js';
import { printJson, printLine } from './print.js';
import { exitCodeOf } from './run-program.js';

interface Flags {
  readonly root: string;
  readonly offline?: true;
  readonly json?: true;
}

const page = {
  name: 'kcare-check - say whether this host can be patched',
  synopsis: 'kcare-check [--offline] [--root DIR] [--json]',
  description: `kcare-check looks at the processor, the distribution, the right to change other processes, the patch server, the trusted keys, the installed libraries and the kernel, and says for each whether it is covered, and what to do where it is not. It changes nothing. What was not looked at is said, and is never taken for covered.`,
  exit: `0
  Libraries and kernel are covered.
4
  Some are not, or could not be looked at.
6
  Libraries cannot be patched on this host as it is.
1
  The check failed.
2
  The configuration is wrong, or others can change it.
64
  Wrong options.`,
  examples: `kcare-check
  As root, after kcare was installed.
kcare-check --json | jq -r '.checks[] | select(.state == "not-covered") | .advice'
  What there is to do.`,
};

const program = new Command('kcare-check')
  .option('--offline', 'Do not ask the patch server.')
  .addOption(
    new Option('--root <DIR>', 'Use the configuration, keys and cache below this directory.')
      .env('KCARE_ROOT')
      .default('/'),
  )
  .option('--json', 'Print the result, and errors, as JSON.')
  .version(version(), '--version', 'Print the version of kcare-check.')
  .helpOption('--help', 'Print this page.')
  .configureHelp({ formatHelp: manualPage(page) })
  .showHelpAfterError('See kcare-check --help.')
  .allowExcessArguments(false)
  .exitOverride();

const marks = { covered: '[ok]', 'not-covered': '[no]', unknown: '[??]', note: '[--]' } as const;

function text({ libraries, kernel, checks }: Coverage): string[] {
  const lines = (area: Check['area']): string[] =>
    checks
      .filter((check) => check.area === area)
      .flatMap(({ state, finding, advice }) => [
        `  ${marks[state]} ${finding}`,
        ...(advice === undefined ? [] : [`       ${advice}`]),
      ]);
  const words = { covered: 'covered', 'not-covered': 'not covered', unknown: 'not known to be covered' };
  return [
    `Libraries: ${words[libraries]}.`,
    ...lines('libraries'),
    `Kernel: ${words[kernel]}.`,
    ...lines('kernel'),
  ];
}

function exitCodeFor({ libraries, kernel }: Coverage): number {
  if (libraries === 'not-covered') return exitCodes.notCovered;
  return libraries === 'covered' && kernel === 'covered' ? exitCodes.done : exitCodes.partial;
}

process.exitCode = await exitCodeOf('kcare-check', async () => {
  const flags = program.parse().opts<Flags>();
  const coverage = await checkCoverage(await readSettings(flags.root), flags.offline === true);
  if (flags.json) printJson(coverage);
  else text(coverage).forEach(printLine);
  return exitCodeFor(coverage);
});
