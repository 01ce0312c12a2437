// `libcare-cron`: writes, shows and removes the job that patches libraries every four hours.
import { Command, Option } from 'commander';
import { initCron, removeCron, showCron, version, type CronJob, type JobKind } from '../agent/index.js';
import { exitCodes, KcareError } from '../base/errors.js';
import { manualPage } from './manual-page.js';
import { printJson, printLine, printWarnings } from './print.js';
import { exitCodeOf } from './run-program.js';

interface CronOptions {
  readonly with?: JobKind;
  readonly root: string;
  readonly json?: true;
}

const program = new Command('libcare-cron')
  .argument('<init|show|remove>')
  .addOption(
    new Option(
      '--with <cron|systemd>',
      'With init: write an entry for cron, or a timer of systemd. Default: cron where it is installed, else systemd where that is.',
    ).choices(['cron', 'systemd']),
  )
  .addOption(
    new Option('--root <DIR>', 'Work on the system below this directory.').env('KCARE_ROOT').default('/'),
  )
  .option('--json', 'Print the result, and errors, as JSON.')
  .version(version(), '--version', 'Print the version.')
  .helpOption('--help', 'Print this page.')
  .configureHelp({
    formatHelp: manualPage({
      name: 'libcare-cron - keep the libraries of running processes patched',
      synopsis: 'libcare-cron init [--with cron|systemd] | show | remove',
      description: `init writes the job that runs kcarectl --lib-auto-update every four hours, at a time of its own for each host, and some random minutes later. It is off until init is run. What is there already is left as it is, so that init may be repeated and the times in the file may be changed by hand. show prints the job, remove takes it away.

FILES
  /etc/cron.d/libcare-cron, or /etc/systemd/system/libcare-cron.timer and libcare-cron.service where there is no cron. KCARE_MAILTO in the environment of init becomes MAILTO of the entry.`,
      exit: `0
  Done, also when there was nothing to do.
1
  Failed.
2
  Refused: a file of that name was written by somebody else, or is unsafe.
64
  Wrong options.`,
      examples: `libcare-cron init
  Update every four hours from now on.
libcare-cron show --json
  What is set up, for programs.`,
    }),
  })
  .showHelpAfterError('See libcare-cron --help.')
  .exitOverride();

async function run(verb: string, { root, json, with: kind }: CronOptions): Promise<number> {
  if (!root.startsWith('/'))
    throw new KcareError('USAGE', `The root directory ${JSON.stringify(root)} is not an absolute path.`);
  if (kind !== undefined && verb !== 'init') throw new KcareError('USAGE', '--with goes with init.');
  switch (verb) {
    case 'init':
    case 'remove': {
      const change = verb === 'init' ? await initCron(root, kind) : await removeCron(root);
      if (json) {
        printJson(change);
      } else {
        printWarnings(change.warnings);
        const removed = change.isChanged ? 'The job is removed.' : 'There is no job.';
        const there = change.isChanged ? 'The job is written.' : 'The job was there.';
        printLine(verb === 'init' ? there : removed);
        jobText(change).forEach(printLine);
      }
      return exitCodes.done;
    }
    case 'show': {
      const job = await showCron(root);
      if (json) printJson(job);
      else if (!job.isInstalled) printLine('There is no job; libcare-cron init writes it.');
      else jobText(job).forEach(printLine);
      return exitCodes.done;
    }
    default:
      throw new KcareError('USAGE', `"${verb}" is none of init, show, remove.`);
  }
}

function jobText({ isInstalled, path = '', schedule = '', command = '' }: CronJob): string[] {
  return isInstalled ? [`file: ${path}`, `times: ${schedule}`, `command: ${command}`] : [];
}

process.exitCode = await exitCodeOf('libcare-cron', async () => {
  const parsed = program.parse();
  return await run(parsed.args[0] ?? '', parsed.opts<CronOptions>());
});
