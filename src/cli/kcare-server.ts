// `kcare-server`: serve a directory of feeds over HTTP until SIGTERM or SIGINT.
import { Command } from 'commander';
import { pino } from 'pino';
import { KcareError, exitCodes } from '../base/errors.js';
import { startServer } from '../server/index.js';
import { exitCodeOf } from './run-program.js';

interface ServerFlags {
  readonly feed: string;
  readonly listen: string;
  readonly reports?: string;
  readonly json?: true;
}

const program = new Command('kcare-server')
  .description('serve a feed made by kcare-build publish over HTTP')
  .requiredOption('--feed <directory>', 'the directory that kcare-build publish writes')
  .option('--listen <address>', 'HOST:PORT; port 0 lets the system choose', '127.0.0.1:8140')
  .option(
    '--reports <directory>',
    'take reports of kcarectl --doctor and keep them there, outside of the feed',
  )
  .option('--json', 'print the address and errors as JSON')
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
