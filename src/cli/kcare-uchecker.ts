// `kcare-uchecker`: which processes execute libraries that are not up to date.
import { Command, Option } from 'commander';
import { readSettings } from '../agent/agent.js';
import { version } from '../agent/version.js';
import { exitCodes, type KcareError } from '../base/errors.js';
import { readKnownFixes, scan, type FeedKnowledge, type ScanReport } from '../checker/index.js';
import { manualPage } from './manual-page.js';
import { printJson, printLine, printWarnings } from './print.js';
import { exitCodeOf } from './run-program.js';
import { ucheckerText } from './uchecker-text.js';
import { processIds } from './process-ids.js';

interface Flags {
  readonly pid?: readonly number[];
  readonly root: string;
  readonly feed: boolean;
  readonly refresh?: true;
  readonly json?: true;
}

const page = {
  name: 'kcare-uchecker - find processes that execute libraries which are not up to date',
  synopsis: 'kcare-uchecker [--pid PID...] [--refresh | --no-feed] [--root DIR] [--json]',
  description: `kcare-uchecker looks at every process, at what it executes in memory, and at what is on disk, and changes nothing. What a process executes is not up to date when another build of it is installed, when it was deleted, or when the feed of patches knows a fix for it that is not in the memory of the process, or only at a lower level.

Each process is judged by its own root directory: in a container, by the distribution and the packages of the container.

A finding begins with [*] when LibCare can patch the process without a restart (kcarectl --lib-update), else with [ ].

Without --refresh, nothing is asked over the network: the feed is what the last update left in /var/cache/kcare, verified again. What could not be looked at, because of missing rights or because no feed is known, is said, and is never taken for up to date.`,
  exit: `0
  Everything was looked at, nothing is outdated.
1
  The scan failed.
2
  The configuration is wrong, or others can change it.
4
  Nothing outdated was found, but not everything could be looked at.
5
  Some process executes what is not up to date.
64
  Wrong options.`,
  examples: `kcare-uchecker
  As root: look at all processes.
kcare-uchecker --no-feed
  Only compare what is executed with what is installed.
kcare-uchecker --json | jq -r '.processes[] | select(.objects[].patchable) | .pid'
  Processes that can be patched in memory.`,
};

const program = new Command('kcare-uchecker')
  .option(
    '--pid <PID...>',
    'Only these processes; several ids with blanks or commas between them.',
    processIds,
  )
  .option('--refresh', 'Fetch what is new of the feed first; takes root.')
  .option('--no-feed', 'Do not look at what the feed knows.')
  .addOption(
    new Option('--root <DIR>', 'Use the configuration, keys and cache below this directory.')
      .env('KCARE_ROOT')
      .default('/'),
  )
  .option('--json', 'Print the result, and errors, as JSON.')
  .version(version(), '--version', 'Print the version of kcare-uchecker.')
  .helpOption('--help', 'Print this page.')
  .configureHelp({ formatHelp: manualPage(page) })
  .showHelpAfterError('See kcare-uchecker --help.')
  .allowExcessArguments(false)
  .exitOverride();

async function learn(flags: Flags): Promise<{ readonly feed: FeedKnowledge; readonly problem?: KcareError }> {
  if (!flags.feed) return { feed: { state: 'left-out' } };
  const settings = await readSettings(flags.root);
  printWarnings(settings.warnings);
  if (!flags.refresh) return { feed: await readKnownFixes(settings) };
  const { refreshKnownFixes } = await import('../checker/refresh.js');
  return await refreshKnownFixes(settings);
}

function exitCodeFor({ status }: ScanReport): number {
  return { clean: exitCodes.done, outdated: exitCodes.outdated, incomplete: exitCodes.partial }[status];
}

process.exitCode = await exitCodeOf('kcare-uchecker', async () => {
  const flags = program.parse().opts<Flags>();
  const { feed, problem } = await learn(flags);
  const report = scan({
    feed,
    pids: flags.pid && [...new Set(flags.pid)],
    problems: problem ? [problem] : [],
  });
  if (flags.json) printJson(report);
  else ucheckerText(report).forEach(printLine);
  return exitCodeFor(report);
});
