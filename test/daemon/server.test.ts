// libcare-server as its clients meet it: the same results as without it, and nobody else gets anything from it.
import { chmodSync, existsSync, rmSync, statSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import { agentPaths } from '../../src/agent/index.js';
import { withLock } from '../../src/agent/lock.js';
import { random as randomNumbers } from '../random.js';
import { AnswersWorld } from '../host/answers.js';
import { converse, runProgram, ServedHost, until } from './served-host.js';

let world: AnswersWorld;
let served: ServedHost;

beforeAll(async () => {
  world = new AnswersWorld();
  const patch = world.writePatchFile(world.patch(1, 43), 'level-1');
  served = await ServedHost.start(join(world.directory, 'host'), [patch]);
});
afterEach(() => world.end());
afterAll(async () => {
  await served.end();
  world.remove();
});

const request = (fields: object): string => `${JSON.stringify({ protocol: 1, ...fields })}\n`;

/** Without what differs from run to run. */
function comparable(text: string): unknown {
  return JSON.parse(text, (key, value: unknown) =>
    ['wallMs', 'pauseNs', 'ptraceRequests', 'since'].includes(key) ? undefined : value,
  ) as unknown;
}

it('answers kcarectl with the same text, JSON and exit code as when it is not there', async () => {
  const target = await world.start();
  const pid = ['--pid', String(target.pid)];
  const rounds = async (): Promise<unknown[]> => {
    const results: unknown[] = [];
    for (const options of [['--lib-update'], ['--lib-info'], ['--lib-patch-info'], ['--lib-unload']]) {
      const text = await served.host.kcarectl(...options, ...pid);
      results.push(text.exitCode, options[0]?.endsWith('info') ? comparable(text.stdout) : text);
      const json = await served.host.kcarectl(...options, ...pid, '--json');
      results.push(json.exitCode, comparable(json.stdout));
    }
    return results;
  };
  const before = Number((await served.status())['requests']);
  const byServer = await rounds();
  expect(Number((await served.status())['requests'])).toBeGreaterThanOrEqual(before + 8);
  await served.end();
  expect(await rounds()).toEqual(byServer);
  await served.startAgain();
});

it('gives libcare-client info -j one JSON object a line', async () => {
  const target = await world.start();
  const pid = ['--pid', String(target.pid)];
  const list = join(served.host.root, 'var/cache/kcare/libcare_cvelist');
  rmSync(list, { force: true });
  expect((await served.client('update', ...pid)).stdout).toContain('Userspace patches are applied.');
  // Whoever changes processes renews what scanners read.
  expect(existsSync(list)).toBe(true);
  const { stdout, exitCode } = await served.client('info', '-j', ...pid);
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    pid: target.pid,
    comm: 'target',
    'libanswers.so': { buildid: world.patch(1, 43).buildId, patchlvl: 1 },
  });
  expect((await served.client('unload', ...pid)).exitCode).toBe(0);
  expect(await world.answer(target)).toBe('answer 42');
});

it('is for root alone: by the mode of the socket, and by who connects', async () => {
  expect(statSync(served.socket).mode & 0o777).toBe(0o600);
  const nobody = await runProgram('libcare-client', ['--root', served.host.root, 'status'], { uid: 65534 });
  expect(nobody.exitCode).not.toBe(0);
  // Also where the mode lets others in.
  chmodSync(served.socket, 0o666);
  chmodSync(world.directory, 0o755);
  const script = `require('net').connect(${JSON.stringify(served.socket)}).pipe(process.stdout)`;
  const { execFileSync } = await import('node:child_process');
  const said = execFileSync(process.execPath, ['-e', script], { uid: 65534, encoding: 'utf8' });
  expect(said).toContain('NOT_PERMITTED');
  expect(said).not.toContain('protocol');
  chmodSync(served.socket, 0o600);
});

it('stays up whatever it is sent', async () => {
  const seed = 20261128;
  const next = randomNumbers(seed);
  const random = (below: number): number => next() % below;
  const valid = request({ request: 'status' });
  const inputs = [
    '\n',
    '{}\n',
    '[]\n',
    'null\n',
    '{"protocol":1}\n',
    '{"protocol":2,"request":"status"}\n',
    '{"protocol":1,"request":"status","pids":[0]}\n',
    '{"protocol":1,"request":"update","waitMs":-1}\n',
    '{"protocol":1,"request":"__proto__"}\n',
    `${'['.repeat(100_000)}\n`,
    'x'.repeat(2 * 1024 * 1024),
    valid + valid,
  ];
  for (let round = 0; round < 100; round++) {
    const bytes = Buffer.from(valid);
    for (let count = 0; count < 3; count++) bytes[random(bytes.length - 1)] = random(256);
    inputs.push(bytes.toString('latin1'));
  }
  for (const input of inputs) {
    // A line that is not over gets no answer: then the greeting is all.
    const lines = await converse(served.socket, input, input.includes('\n') ? 2 : 1);
    expect(lines[0], `seed ${seed}, ${JSON.stringify(input.slice(0, 100))}`).toContain('libcare-server');
    for (const line of lines) expect(() => void JSON.parse(line)).not.toThrow();
  }
  expect(served.isServing).toBe(true);
  expect((await served.status())['pid']).toBeDefined();
});

it('refuses more clients than it can serve, and serves again when they are gone', async () => {
  const sockets = Array.from({ length: 100 }, () => net.connect(served.socket).on('error', () => undefined));
  const refused = await new Promise<string>((resolve) => {
    for (const socket of sockets)
      socket.on('data', (data: Buffer) => data.toString().includes('LOCK_HELD') && resolve(data.toString()));
  });
  expect(refused).toContain('clients');
  for (const socket of sockets) socket.destroy();
  await until(async () => (await served.client('status')).exitCode === 0);
});

it('is not held up by clients that neither ask nor read', async () => {
  const silent = net.connect(served.socket);
  const half = net.connect(served.socket, () => half.write('{"protocol":1,'));
  const deaf = net.connect(served.socket, () => {
    deaf.pause();
    deaf.write(request({ request: 'info' }));
  });
  expect((await served.client('status')).exitCode).toBe(0);
  for (const socket of [silent, half, deaf]) socket.destroy();
});

it('hears of what concerns new processes while all that it works on waits for the lock', async () => {
  const target = await world.start();
  const { root } = served.host;
  const reason = async (): Promise<unknown> =>
    ((await served.status())['watch'] as { readonly reason: unknown }).reason;
  const updates: Promise<CommandResult>[] = [];
  await withLock(agentPaths(root).lock, { command: 'a test', waitMs: 60_000 }, async () => {
    for (let count = 0; count < 5; count++)
      updates.push(served.client('update', '--wait', '600', '--pid', String(target.pid)));
    await until(async () => (await served.status())['jobs'] === updates.length);
    await served.host.kcarectl('--disable-libcare');
    await until(async () => /turned off/.test(String(await reason())));
    await served.host.kcarectl('--enable-libcare');
    await until(async () => /^No update of all/.test(String(await reason())));
  });
  expect((await Promise.all(updates)).map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0, 0]);
});

it('does not make kcarectl hang when it hangs itself', async () => {
  const target = await world.start();
  process.kill(served.serverPid, 'SIGSTOP');
  try {
    const { exitCode, stdout } = await served.host.kcarectl('--lib-update', '--pid', String(target.pid));
    expect({ exitCode, stdout }).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('applied') as string,
    });
  } finally {
    process.kill(served.serverPid, 'SIGCONT');
  }
  expect(await world.answer(target)).toBe('answer 43');
});

it('may be killed at any time: a new one knows everything', async () => {
  const target = await world.start();
  const pid = ['--pid', String(target.pid)];
  await served.client('update', ...pid);
  const before = await served.client('info', '-j', ...pid);
  process.kill(served.serverPid, 'SIGKILL');
  await until(() => !served.isServing);
  await served.startAgain();
  expect(await served.client('info', '-j', ...pid)).toEqual(before);
});

it('ends when it is asked to, and is the only one on its socket', async () => {
  const second = await runProgram('libcare-server', ['--root', served.host.root]);
  expect(second).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining('Another libcare-server') as string,
  });
  expect((await served.client('stop')).exitCode).toBe(0);
  await until(() => !served.isServing);
  const without = await served.client('status');
  expect(without).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining('does not answer') as string,
  });
  await served.startAgain();
});
