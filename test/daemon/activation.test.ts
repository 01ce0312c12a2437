// libcare-server under a service manager: it begins with the first client, and however it ends the next one brings it back.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { handmadePatch, returns } from '../../fixtures/support/handmade.js';
import type { Program } from '../../fixtures/support/program.js';
import { agentPaths, type LibraryResult } from '../../src/agent/index.js';
import { withLock } from '../../src/agent/lock.js';
import { packageRoot } from '../../src/base/package-root.js';
import { runByServer } from '../../src/daemon/index.js';
import { AnswersWorld } from '../host/answers.js';
import { ActivatedHost, type RunningCommand } from './activated-host.js';
import { until } from './served-host.js';

let world: AnswersWorld;
let activated: ActivatedHost;

beforeAll(async () => {
  world = new AnswersWorld();
  const functions = { answer: returns(43), wait_inside: returns(7) };
  const patch = handmadePatch(world.compiled.library, 1, functions);
  activated = await ActivatedHost.start(join(world.directory, 'host'), [
    world.writePatchFile(patch, 'level-1'),
  ]);
});
afterEach(() => world.end());
afterAll(async () => {
  await activated.end();
  world.remove();
});

const pidsOf = (targets: readonly Program[]): string[] => ['--pid', targets.map(({ pid }) => pid).join(',')];

const tookTheRequest =
  'libcare-client: warning: libcare-server took the request, but it closed the connection; it is asked once more.\n';
const askedAgain = /^(libcare-client: warning: libcare-server .*; it is asked once more\.\n)?$/;

async function killServer(): Promise<void> {
  const pid = activated.serverPid;
  process.kill(pid, 'SIGKILL');
  await activated.event(new RegExp(`^ended ${pid} -9$`));
}

/** Levels by process, as `libcare-client info` says, through a server that may have to be started for it. */
async function levels(targets: readonly Program[]): Promise<(number | undefined)[]> {
  const { stdout, stderr, exitCode } = await activated.client('info', '-j', ...pidsOf(targets));
  expect(exitCode, stderr).toBe(0);
  const entries = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { pid: number; 'libanswers.so': { patchlvl: number } });
  return targets.map((target) => entries.find(({ pid }) => pid === target.pid)?.['libanswers.so'].patchlvl);
}

/** An update that has patched the first target and comes back to the second one, in which a thread is in the way. */
async function updateInTheMiddle(
  command: 'kcarectl' | 'libcare-client',
): Promise<{ free: Program; blocked: Program; targets: Program[]; update: RunningCommand }> {
  const [free, blocked] = [await world.start(), await world.startBlocked()];
  const targets = [free, blocked];
  const verb = command === 'kcarectl' ? '--lib-update' : 'update';
  const update = activated.begin(command, verb, '--wait', '600', ...pidsOf(targets));
  await until(async () => (await world.answer(free)) === 'answer 43');
  expect(activated.workerPids).not.toEqual([]);
  return { free, blocked, targets, update };
}

it('begins with its first client, says when it is ready and when it stops, and leaves the socket', async () => {
  const target = await world.start();
  expect(await levels([target])).toEqual([undefined]);
  const pid = activated.serverPid;
  expect(await activated.event(/^notified/)).toBe(`notified ${pid} READY=1`);
  const status = JSON.parse((await activated.client('status')).stdout) as object;
  expect(status).toMatchObject({ pid, isActivated: true });
  process.kill(pid, 'SIGTERM');
  expect(await activated.event(/^notified/)).toBe(`notified ${pid} STOPPING=1`);
  await activated.event(/^ended \d+ 0$/);
  expect(await levels([target])).toEqual([undefined]);
  expect(activated.serverPid).not.toBe(pid);
});

it('speaks to a service manager in the abstract namespace', async () => {
  const name = `@kcare-test-${process.pid}`;
  const other = await ActivatedHost.start(join(world.directory, 'abstract'), [], name);
  try {
    expect((await other.client('status')).exitCode).toBe(0);
    expect(await other.event(/^notified/)).toBe(`notified ${other.serverPid} READY=1`);
  } finally {
    await other.end();
  }
});

it('is what the units say', () => {
  const unit = (name: string): string => readFileSync(join(packageRoot(), 'packaging/systemd', name), 'utf8');
  const service = unit('libcare.service');
  expect(service).toMatch(/^Type=notify$/m);
  expect(service).toMatch(/^NotifyAccess=main$/m);
  expect(unit('libcare.socket')).toContain(`ListenStream=${agentPaths('/').socket}\n`);
});

describe('killed', () => {
  it('while it does nothing, it is back for the next client', async () => {
    const target = await world.start();
    expect((await activated.client('update', ...pidsOf([target]))).exitCode).toBe(0);
    await killServer();
    expect(await levels([target])).toEqual([1]);
  });

  it('as soon as it was started, it harms nobody', async () => {
    const target = await world.start();
    for (const delay of [0, 20, 60, 150]) {
      await levels([target]);
      await killServer();
      const update = activated.begin('libcare-client', 'update', ...pidsOf([target]));
      await activated.event(/^started/);
      await new Promise((resolve) => setTimeout(resolve, delay));
      await killServer();
      const { exitCode, stderr } = await update.result;
      // The next one has heard it first, or is asked for it.
      expect([exitCode, stderr]).toEqual([0, expect.stringMatching(askedAgain) as string]);
    }
    expect(await levels([target])).toEqual([1]);
    expect(await world.answer(target)).toBe('answer 43');
  });

  it('in the middle of an update, the update goes on, and the next server waits for it and does the rest', async () => {
    const { blocked, targets, update } = await updateInTheMiddle('libcare-client');
    await killServer();
    expect(await levels(targets)).toEqual([1, undefined]);
    blocked.writeLine('open');
    expect(await update.result).toMatchObject({ exitCode: 0, stderr: tookTheRequest });
    expect(await levels(targets)).toEqual([1, 1]);
  });

  it('in the middle of an update, kcarectl waits for what the server began, and says so', async () => {
    const { blocked, targets, update } = await updateInTheMiddle('kcarectl');
    await killServer();
    expect(await levels(targets)).toEqual([1, undefined]);
    blocked.writeLine('open');
    const { exitCode, stderr } = await update.result;
    expect({ exitCode, stderr }).toEqual({
      exitCode: 0,
      stderr:
        'kcarectl: warning: libcare-server took the request, but it closed the connection; kcarectl did the work itself.\n',
    });
    expect(await levels(targets)).toEqual([1, 1]);
  });

  it('or hanging in the middle of an update, it is named to whoever meets its lock', async () => {
    const [free, blocked] = [await world.start(), await world.startBlocked()];
    const targets = [free, blocked];
    const { root } = activated.host;
    const pids = targets.map(({ pid }) => pid);
    const attempt = (): Promise<LibraryResult> => {
      const options = { pids, waitMs: 600_000, dryRun: false };
      const here = (): Promise<never> =>
        withLock(agentPaths(root).lock, { command: 'a test', waitMs: 200 }, () =>
          Promise.reject(new Error('The lock is free.')),
        );
      return runByServer(root, 'update', options, here, { greetingMs: 60_000, silenceMs: 10_000 });
    };
    const stopped = attempt();
    await Promise.race([stopped, until(async () => (await world.answer(free)) === 'answer 43')]);
    const [worker] = activated.workerPids;
    process.kill(activated.serverPid, 'SIGSTOP');
    const held = `may still work on it: process ${worker} \\(kcarectl --lib-update, since .*\\) holds the lock`;
    await expect(stopped).rejects.toMatchObject({
      code: 'LOCK_HELD',
      message: expect.stringMatching(`took the request, but it says nothing for 10 s, and ${held}`) as string,
    });
    await killServer();
    blocked.writeLine('open');
    await until(async () => (await levels(targets))[1] === 1);
  });

  it.each(['kcarectl', 'libcare-client'] as const)(
    'with its workers, as systemd kills it, %s sees to the rest',
    async (command) => {
      const { blocked, targets, update } = await updateInTheMiddle(command);
      const workers = activated.workerPids;
      await killServer();
      for (const pid of workers) process.kill(pid, 'SIGKILL');
      expect(await levels(targets)).toEqual([1, undefined]);
      blocked.writeLine('open');
      const { exitCode, stderr } = await update.result;
      expect({ exitCode, stderr }).toEqual({
        exitCode: 0,
        stderr: expect.stringContaining('took the request, but it closed the connection') as string,
      });
      expect(await levels(targets)).toEqual([1, 1]);
    },
  );

  it('again, while it works on what it was asked once more, libcare-client says so and ends', async () => {
    const { blocked, update } = await updateInTheMiddle('libcare-client');
    await killServer();
    await activated.event(/^started/);
    await until(() => activated.workerPids.length > 0);
    await killServer();
    const { exitCode, stderr } = await update.result;
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/; what it began may go on\.\n/);
    expect(stderr.startsWith(tookTheRequest)).toBe(true);
    blocked.writeLine('open');
  });
});

it('stops during an update with a report of it', async () => {
  const { blocked, targets, update } = await updateInTheMiddle('libcare-client');
  process.kill(activated.serverPid, 'SIGTERM');
  const { exitCode, stdout } = await update.result;
  expect(exitCode, stdout).toBe(4);
  expect(stdout).toContain('1 process left');
  await activated.event(/^ended \d+ 0$/);
  expect(await levels(targets)).toEqual([1, undefined]);
  blocked.writeLine('open');
});
