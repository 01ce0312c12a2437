// Commands that are told to end, or whose reader goes away: an exit code that is documented, whole lines, no stack.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { handmadePatch, returns } from '../../fixtures/support/handmade.js';
import type { Program } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';
import { exitCodes } from '../../src/base/errors.js';
import { ServedHost, until } from '../daemon/served-host.js';
import { AnswersWorld } from '../host/answers.js';

let world: AnswersWorld;
let served: ServedHost;
/** Settles at once, and never: a thread is in the way. */
let free: Program;
let blocked: Program;

beforeAll(async () => {
  world = new AnswersWorld();
  const patch = handmadePatch(world.compiled.library, 1, { answer: returns(43), wait_inside: returns(7) });
  served = await ServedHost.start(join(world.directory, 'host'), [world.writePatchFile(patch, 'level-1')]);
  free = await world.start();
  blocked = await world.startBlocked();
});
afterAll(async () => {
  await served.end();
  await world.end();
  world.remove();
});

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command as on a terminal of 80 columns in Germany; `interrupt` says when the signal is due. */
async function interrupted(
  name: string,
  parameters: readonly string[],
  signal: NodeJS.Signals,
  interrupt: () => Promise<unknown>,
): Promise<Ended> {
  const environment = { LC_ALL: 'de_DE.UTF-8', COLUMNS: '80', KCARE_ROOT: served.host.root };
  const child = spawn(join(packageRoot(), 'bin', name), parameters, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  const ended = new Promise<Pick<Ended, 'code' | 'signal'>>((resolve) =>
    child.once('exit', (code, by) => resolve({ code, signal: by })),
  );
  const output = Promise.all([text(child.stdout), text(child.stderr)]);
  await interrupt();
  child.kill(signal);
  const [stdout, stderr] = await output;
  return { ...(await ended), stdout, stderr };
}

/** Nothing, or whole lines, each of them JSON; no trace of Node.js. */
function expectWhole({ stdout, stderr }: Ended): void {
  if (stdout !== '') expect(stdout).toMatch(/\n$/);
  for (const line of stdout.split('\n').filter((one) => one !== ''))
    expect(() => void JSON.parse(line)).not.toThrow();
  expect(stderr).not.toMatch(/^\s+at |node:|EPIPE/m);
}

const documented = new Set<number | null>(Object.values(exitCodes));

describe.each([
  ['kcare-uchecker', ['--no-feed', '--json']],
  ['kcare-check', ['--offline', '--json']],
  ['kcare-uname', ['--all', '--json']],
  ['libcare-cron', ['show', '--json']],
  ['libcare-client', ['info', '--json']],
  ['kcarectl', ['--lib-info']],
])('%s', (name, parameters) => {
  it('keeps its exit code, and shows no stack, when nobody reads', async () => {
    const shell = '"$@" | head -0; exit "${PIPESTATUS[0]}"';
    const words = ['-c', shell, 'bash', join(packageRoot(), 'bin', name), ...parameters];
    const env = { ...process.env, LC_ALL: 'C', COLUMNS: '80', KCARE_ROOT: served.host.root };
    const child = spawn('bash', words, { stdio: ['ignore', 'pipe', 'pipe'], env });
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    expectWhole({ code: await ended, signal: null, stdout, stderr });
    expect(documented).toContain(await ended);
    expect(await ended, stderr).not.toBe(exitCodes.failed);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('that only looks is ended by %s, or had ended', async (signal) => {
    for (const delay of [0, 100, 250]) {
      const ended = await interrupted(name, parameters, signal, () => sleep(delay));
      expectWhole(ended);
      // Shells say 128 and the number of the signal: 130, 143.
      if (ended.signal !== null) expect(ended.signal).toBe(signal);
      else expect(documented).toContain(ended.code);
    }
  });
});

it('libcare-client that asks a server which hangs is ended at once', async () => {
  process.kill(served.serverPid, 'SIGSTOP');
  try {
    const ended = await interrupted('libcare-client', ['status'], 'SIGINT', () => sleep(1000));
    expect(ended).toMatchObject({ code: null, signal: 'SIGINT', stdout: '', stderr: '' });
  } finally {
    process.kill(served.serverPid, 'SIGCONT');
  }
});

it.each(['kcarectl', 'libcare-client'])(
  '%s that is ended during an update by the server reports it',
  async (name) => {
    const pids = `${free.pid},${blocked.pid}`;
    const verb = name === 'kcarectl' ? '--lib-update' : 'update';
    await served.client('unload', '--pid', pids, '--wait', '60');
    const ended = await interrupted(name, [verb, '--pid', pids, '--wait', '600', '--json'], 'SIGINT', () =>
      until(async () => (await world.answer(free)) === 'answer 43'),
    );
    expectWhole(ended);
    expect({ code: ended.code, stderr: ended.stderr }).toEqual({ code: exitCodes.partial, stderr: '' });
    const { processes } = JSON.parse(ended.stdout) as { processes: { pid: number; result: string }[] };
    expect(processes.find(({ pid }) => pid === free.pid)?.result).toBe('applied');
    expect(['busy', 'not-reached']).toContain(processes.find(({ pid }) => pid === blocked.pid)?.result);
  },
);

describe.each(['SIGINT', 'SIGTERM'] as const)('%s', (signal) => {
  it('ends libcare-server as it is meant to end', async () => {
    const root = join(world.directory, signal);
    mkdirSync(root, { mode: 0o755 });
    const ended = await interrupted('libcare-server', ['--root', root], signal, () =>
      until(() => existsSync(join(root, 'run/libcare/libcare.sock'))),
    );
    // The socket is there a moment before the server heeds signals.
    if (ended.signal === null) expect(ended).toEqual({ code: 0, signal: null, stdout: '', stderr: '' });
    else expect(ended).toMatchObject({ signal, stdout: '', stderr: '' });
  });

  it('ends kcare-server as it is meant to end', async () => {
    const words = ['--feed', served.host.feedDirectory, '--listen', '127.0.0.1:0', '--json'];
    const ended = await interrupted('kcare-server', words, signal, () => sleep(1500));
    expectWhole(ended);
    if (ended.signal === null) expect(ended.code).toBe(0);
    else expect(ended).toMatchObject({ signal, stdout: '' });
  });
});
