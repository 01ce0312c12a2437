// What systemd gives and wants to hear: sd_listen_fds(3), sd_notify(3).
import { spawn } from 'node:child_process';

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

/** Tells systemd that this process is ready. Node has no datagram sockets for paths: systemd's own program says it. */
export function notifyReady(environment: NodeJS.ProcessEnv = process.env): void {
  if ((environment['NOTIFY_SOCKET'] ?? '') === '') return;
  spawn('systemd-notify', ['--ready', `--pid=${process.pid}`], { stdio: 'ignore' })
    .on('error', () => undefined)
    .unref();
}
