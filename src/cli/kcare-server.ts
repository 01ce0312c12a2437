// `kcare-server`: serve a directory of feeds over HTTP until SIGTERM or SIGINT.
import { Command } from 'commander';
import { pino } from 'pino';
import { version } from '../agent/index.js';
import { KcareError, exitCodes } from '../base/errors.js';
import { startServer } from '../server/index.js';
import { manualPage } from './manual-page.js';
import { exitCodeOf } from './run-program.js';

interface ServerFlags {
  readonly feed: string;
  readonly listen: string;
  readonly reports?: string;
  readonly json?: true;
}

const program = new Command('kcare-server')
  .requiredOption('--feed <directory>', 'The directory that kcare-build publish writes.')
  .option(
    '--listen <address>',
    'HOST:PORT; port 0 lets the system choose. Default: 127.0.0.1:8140',
    '127.0.0.1:8140',
  )
  .option(
    '--reports <directory>',
    'Take reports of kcarectl --doctor and keep them there, outside of the feed.',
  )
  .option('--json', 'Print the address, and errors, as JSON.')
  .version(version(), '--version', 'Print the version.')
  .helpOption('--help', 'Print this page.')
  .configureHelp({
    formatHelp: manualPage({
      name: 'kcare-server - serve a feed of patches over HTTP',
      synopsis: 'kcare-server --feed DIRECTORY [--listen HOST:PORT] [--reports DIRECTORY] [--json]',
      description: `kcare-server serves the feed that kcare-build publish made. The first line that it prints is its address; the log goes to standard error. A feed is signed: the server needs no keys, and can change nothing in it.`,
      exit: `0
  Ended by SIGTERM or SIGINT; requests that were begun are finished.
1
  Failed, for example because the address is taken.
2
  Refused, because it would be unsafe.
64
  Wrong options.`,
      examples: `kcare-server --feed /srv/feed --listen 0.0.0.0:8140
  Serve on all addresses of this host.`,
    }),
  })
  .showHelpAfterError('See kcare-server --help.')
  .exitOverride()
  .action(serve);

async function serve(flags: ServerFlags): Promise<void> {
  // The log goes to standard error: the first line of standard output is the address, for scripts.
  const log = pino({ name: 'kcare-server' }, pino.destination({ dest: 2, sync: true }));
  const server = await startServer({
    feedDirectory: flags.feed,
    ...parseAddress(flags.listen),
    log,
    ...(flags.reports !== undefined && { reportDirectory: flags.reports }),
  });
  process.stdout.write(flags.json === true ? `${JSON.stringify({ url: server.url })}\n` : `${server.url}\n`);
  const end = new Promise<NodeJS.Signals>((done) => {
    process.once('SIGTERM', done);
    process.once('SIGINT', done);
  });
  log.info({ signal: await end }, 'stopping');
  await server.close();
}

function parseAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new KcareError('USAGE', `${text} is not HOST:PORT, such as 127.0.0.1:8140 or [::1]:8140.`);
  }
  return { host: match[1] ?? match[2] ?? '', port };
}

process.exitCode = await exitCodeOf('kcare-server', async () => {
  await program.parseAsync();
  return exitCodes.done;
});
