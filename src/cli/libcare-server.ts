// `libcare-server`: the daemon, in the foreground, until SIGTERM, SIGINT or a client's stop.
import { Command, Option } from 'commander';
import { version } from '../agent/index.js';
import { exitCodes } from '../base/errors.js';
import { startDaemon } from '../daemon/daemon.js';
import { activationSocket, serviceManager } from '../daemon/systemd-socket.js';
import { manualPage } from './manual-page.js';
import { printWarnings } from './print.js';
import { exitCodeOf } from './run-program.js';

const page = {
  name: 'libcare-server - patch and unpatch libraries for kcarectl and libcare-client',
  synopsis: 'libcare-server [--root DIR] [--no-watch]',
  description: `libcare-server runs in the foreground and answers kcarectl and libcare-client on the socket /run/libcare/libcare.sock, or on the socket that systemd opened for it. Only root may use it. It also brings processes that begin later, and libraries that are loaded later, to the patchset of the last update of all processes, within milliseconds; after an unload of all processes it leaves them alone.

What is patched is kept in the processes alone: libcare-server may be killed at any time, and a new one knows everything.`,
  exit: `0
  Ended by SIGTERM, SIGINT or libcare-client stop.
1
  Failed, for example because another libcare-server runs.
2
  Refused: unsafe files or a wrong configuration.
64
  Wrong options.`,
  examples: `libcare-server
  Run in the foreground, without systemd.
systemctl start libcare.socket
  Let systemd start it when it is needed.`,
};

const program = new Command('libcare-server')
  .addOption(
    new Option('--root <DIR>', 'Use the configuration, cache and socket below this directory.')
      .env('KCARE_ROOT')
      .default('/'),
  )
  .option('--no-watch', 'Leave processes that begin later to the next update.')
  .option('--json', 'Print errors as JSON.')
  .version(version(), '--version', 'Print the version.')
  .helpOption('--help', 'Print this page.')
  .configureHelp({ formatHelp: manualPage(page) })
  .showHelpAfterError('See libcare-server --help.')
  .exitOverride();

process.exitCode = await exitCodeOf('libcare-server', async () => {
  const { root, watch } = program.parse().opts<{ root: string; watch: boolean }>();
  const notify = serviceManager();
  const tell = (state: Parameters<typeof notify>[0]): void => {
    const problem = notify(state);
    if (problem !== undefined) printWarnings([problem]);
  };
  const toldToEnd = new Promise<void>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  const daemon = await startDaemon({ root, descriptor: activationSocket(), isWatching: watch });
  tell('READY=1');
  await Promise.race([daemon.stopped, toldToEnd]);
  tell('STOPPING=1');
  await daemon.close();
  return exitCodes.done;
});
