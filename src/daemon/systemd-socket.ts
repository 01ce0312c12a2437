// What systemd gives and wants to hear: sd_listen_fds(3), sd_notify(3).
import { sendDatagram } from '../addon/host.js';

const firstDescriptor = 3;

/** The listening socket that systemd opened for this process; undefined when there is none. */
export function activationSocket(environment: NodeJS.ProcessEnv = process.env): number | undefined {
  const isForUs = environment['LISTEN_PID'] === String(process.pid);
  const count = Number(environment['LISTEN_FDS'] ?? 0);
  // Workers must not take it for theirs.
  delete environment['LISTEN_PID'];
  delete environment['LISTEN_FDS'];
  delete environment['LISTEN_FDNAMES'];
  return isForUs && count >= 1 ? firstDescriptor : undefined;
}

/** Tells the service manager what this process is about to do; "READY=1", for example. Returns what went wrong. */
export type Notify = (state: 'READY=1' | 'STOPPING=1') => string | undefined;

/** How to tell it; nothing is told where there is no service manager. */
export function serviceManager(environment: NodeJS.ProcessEnv = process.env): Notify {
  const path = environment['NOTIFY_SOCKET'] ?? '';
  // What workers start has nothing to tell.
  delete environment['NOTIFY_SOCKET'];
  return (state) => {
    if (path === '') return undefined;
    try {
      sendDatagram(path, `${state}\n`);
      return undefined;
    } catch (thrown) {
      return `the service manager was not told ${state}: ${path}: ${(thrown as Error).message}`;
    }
  };
}
