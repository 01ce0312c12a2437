// The scratch process of a trial: it has the object mapped and relocated, and waits before main until it is ended.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import type { TrialPlace } from './trial-place.js';

/** How long a program that does nothing may take to be there. */
const startMs = 30_000;

/** A process that has the object and waits before main. Throws TARGET_GONE where none can be started. */
export async function startScratch(
  { socket, holder, object, loader }: TrialPlace,
  isProgram: boolean,
): Promise<{ pid: number; end: () => Promise<void> }> {
  const libraries = path.dirname(object);
  const preload = isProgram ? holder : `${holder}:${object}`;
  const [file = '', ...parameters] = isProgram
    ? [object]
    : loader === undefined
      ? ['/bin/true']
      : [loader, '--library-path', libraries, '--preload', preload, '/bin/true'];
  const environment =
    isProgram || loader === undefined ? { LD_PRELOAD: preload, LD_LIBRARY_PATH: libraries } : {};
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const child = spawn(file, parameters, {
    stdio: 'ignore',
    env: { PATH: process.env['PATH'], ...environment, KCARE_TRIAL: socket, KCARE_TRIAL_STAY: '1' },
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
  };
  const arrived = new Promise<boolean>((resolve) => {
    server.once('connection', (held) => {
      held.on('error', () => undefined);
      held.once('data', () => resolve(true));
    });
    child.once('error', () => resolve(false));
    child.once('close', () => resolve(false));
    setTimeout(() => resolve(false), startMs).unref();
  });
  if ((await arrived) && child.pid !== undefined) return { pid: child.pid, end };
  await end();
  throw new KcareError('TARGET_GONE', `No process could be started that loads ${object}.`);
}
