// `libcare-client`: asks libcare-server, and says so when there is none.
import { Command, Option } from 'commander';
import { openAgent, version, type LibraryInfo } from '../agent/index.js';
import { exitCodes, KcareError } from '../base/errors.js';
import { askServer, NoServer, type Question } from '../daemon/client.js';
import { libraryResultFrom } from '../daemon/protocol.js';
import { clientInfo } from './client-info.js';
import { keepingCveList } from './keeping-cve-list.js';
import { libraryJson } from './library-json.js';
import { libraryText } from './library-text.js';
import { manualPage } from './manual-page.js';
import { processIds } from './process-ids.js';
import { printJson, printLine, printWarnings } from './print.js';
import { exitCodeOf } from './run-program.js';

const page = {
  name: 'libcare-client - ask libcare-server',
  synopsis: `libcare-client info [-j]
libcare-client update | unload [--wait SECONDS] [--pid PID...]
libcare-client status | stop`,
  description: `libcare-client sends one request to libcare-server. "info" lists the patched processes, one a line; with -j each line is a JSON object with pid, comm, and for each patched object its build-id and patch level. "update" and "unload" do what kcarectl --lib-update and --lib-unload do. "status" prints figures of the server as JSON, "stop" ends it; what is patched stays patched.`,
  exit: `0
  Done.
1
  Failed; there is no server, for example.
2
  Refused.
4
  Some processes were left as they were, or could not be examined.
64
  Wrong options.`,
  examples: `libcare-client info -j | jq -r .comm
  The names of the patched processes.
libcare-client update --wait 60
  Patch everything; try for a minute where a process is busy.`,
};

interface Flags {
  readonly root: string;
  readonly json?: true;
  readonly wait: string;
  readonly pid?: readonly number[];
}

/** Nobody else does what it is asked for. */
const greetingMs = 30_000;

const verbs = ['info', 'update', 'unload', 'status', 'stop'] as const;

const program = new Command('libcare-client')
  .argument('<command>')
  .option('-j, --json', 'Print JSON.')
  .option('--wait <SECONDS>', 'How long to come back to busy processes (default: 5).', '5')
  .option(
    '--pid <PID...>',
    'Only these processes; several ids with blanks or commas between them.',
    processIds,
  )
  .addOption(new Option('--root <DIR>', 'The server of this directory.').env('KCARE_ROOT').default('/'))
  .version(version(), '--version', 'Print the version.')
  .helpOption('--help', 'Print this page.')
  .configureHelp({ formatHelp: manualPage(page) })
  .showHelpAfterError('See libcare-client --help.')
  .exitOverride();

async function run(verb: string, flags: Flags): Promise<number> {
  const request = verbs.find((known) => known === verb);
  if (!request) throw new KcareError('USAGE', `"${verb}" is none of ${verbs.join(', ')}.`);
  const question = { request, waitMs: seconds(flags.wait) * 1000, ...(flags.pid && { pids: flags.pid }) };
  switch (request) {
    case 'info': {
      const info = (await ask(flags.root, question)) as LibraryInfo;
      for (const entry of clientInfo(info)) {
        if (flags.json) printJson(entry);
        else printLine(infoLine(entry));
      }
      return info.errors ? exitCodes.partial : exitCodes.done;
    }
    case 'update':
    case 'unload': {
      const agent = await openAgent(flags.root);
      const result = await keepingCveList(request, agent, async () =>
        libraryResultFrom(await ask(flags.root, question)),
      );
      if (flags.json) {
        printJson(libraryJson(result));
      } else {
        printWarnings(result.warnings);
        libraryText(request, result).forEach(printLine);
      }
      return result.exitCode;
    }
    case 'status':
    case 'stop':
      printJson(await ask(flags.root, question));
      return exitCodes.done;
  }
}

/** A server that died is asked once more: the next one reads from the processes what is done already. */
async function ask(root: string, question: Question): Promise<unknown> {
  try {
    return await askServer(root, question, { greetingMs });
  } catch (thrown) {
    if (!(thrown instanceof NoServer) || !thrown.isGone || question.request === 'stop')
      throw asUnreachable(thrown);
    printWarnings([`libcare-server ${whatItDid(thrown)}; it is asked once more.`]);
  }
  try {
    return await askServer(root, question, { greetingMs });
  } catch (thrown) {
    throw asUnreachable(thrown);
  }
}

function whatItDid({ message, wasAsked }: NoServer): string {
  return wasAsked ? `took the request, but ${message}` : `does not answer: ${message}`;
}

function asUnreachable(thrown: unknown): unknown {
  if (!(thrown instanceof NoServer)) return thrown;
  const goesOn = thrown.wasAsked ? '; what it began may go on' : '';
  return new KcareError('SERVER_UNREACHABLE', `libcare-server ${whatItDid(thrown)}${goesOn}.`);
}

function infoLine({ pid, comm, ...objects }: ReturnType<typeof clientInfo>[number]): string {
  const patched = Object.entries(objects).map(([name, object]) => `${name} ${JSON.stringify(object)}`);
  return `${pid} ${comm}: ${patched.join(', ')}`;
}

function seconds(text: string): number {
  if (!/^\d{1,5}(\.\d+)?$/.test(text))
    throw new KcareError('USAGE', `--wait: "${text}" is not a number of seconds.`);
  return Number(text);
}

process.exitCode = await exitCodeOf('libcare-client', async () => {
  program.parse();
  return await run(program.args[0] ?? '', program.opts<Flags>());
});
