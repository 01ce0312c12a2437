// libcare-server as a whole: the socket, and the workers behind it.
import os from 'node:os';
import { agentPaths, openAgent, version } from '../agent/index.js';
import { KcareError } from '../base/errors.js';
import { safeDirectory } from '../base/safe-files.js';
import { Jobs } from './jobs.js';
import type { Request } from './protocol.js';
import { startServer, type Answering } from './server.js';
import { Watcher } from './watcher.js';

/**
 * R8: on a busy host, what a target waits for is a processor for us. The server itself has little to do; its workers go on
 * as any other program does.
 */
const niceness = -10;

export interface DaemonOptions {
  readonly root: string;
  /** A listening socket that was opened for this process. */
  readonly descriptor?: number | undefined;
  /** Patch new processes, too; default true. */
  readonly isWatching?: boolean | undefined;
}

export interface Daemon {
  /** Settled when a client asked for the end. */
  readonly stopped: Promise<void>;
  close(): Promise<void>;
}

/** Throws NOT_PERMITTED, USAGE, CONFIG_INVALID, UNSAFE_MODE, LOCK_HELD. */
export async function startDaemon({ root, descriptor, isWatching = true }: DaemonOptions): Promise<Daemon> {
  if (process.geteuid?.() !== 0) throw new KcareError('NOT_PERMITTED', 'libcare-server has to run as root.');
  const agent = await openAgent(root);
  riseTo(niceness);
  const paths = agentPaths(root);
  await safeDirectory(paths.intents);
  const since = new Date();
  const jobs = new Jobs(paths.root);
  const watcher = isWatching ? new Watcher(agent, jobs) : undefined;
  let stop: () => void = () => undefined;
  const stopped = new Promise<void>((resolve) => (stop = resolve));
  const status = (): object => ({
    version: version(),
    pid: process.pid,
    since: since.toISOString(),
    root: paths.root,
    isActivated: descriptor !== undefined,
    jobs: jobs.count,
    ...server.counts,
    watch: watcher?.status ?? { state: 'off', reason: 'It was started with --no-watch.' },
    memoryBytes: process.memoryUsage.rss(),
    cpuMs: Math.round((process.cpuUsage().user + process.cpuUsage().system) / 1000),
  });
  const answer = (request: Request, onProgress: (progress: unknown) => void): Answering => {
    switch (request.request) {
      case 'status':
        return { result: Promise.resolve(status()), end: () => undefined };
      case 'stop':
        setImmediate(stop);
        return { result: Promise.resolve({ stopping: true }), end: () => undefined };
      default: {
        const { request: job, pids, waitMs, dryRun } = request;
        return jobs.start({ job, waitMs, dryRun, ...(pids && { pids }) }, onProgress);
      }
    }
  };
  const server = await startServer(paths.socket, descriptor, answer);
  await watcher?.start();
  agent.logger.info(
    { socket: paths.socket, isActivated: descriptor !== undefined },
    'libcare-server started',
  );
  return {
    stopped,
    close: async () => {
      jobs.endAll();
      await Promise.all([watcher?.close(), server.close()]);
      agent.logger.info('libcare-server stopped');
    },
  };
}

/** Where a container or a limit does not allow it, everything works all the same. */
function riseTo(priority: number): void {
  try {
    if (os.getPriority() > priority) os.setPriority(priority);
  } catch {
    return;
  }
}
