// The tracer is killed at every step of its work: the target survives and is right (R1, R2).
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { readMemory } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';
import { findSignalReturn, processState, startFixture, statusLine } from './target.js';

const engine = path.join(packageRoot(), 'build', 'Release', 'kcare_engine.node');
const requester = path.join(packageRoot(), 'fixtures', 'addon', 'request.mjs');
let target: Program | undefined;

afterEach(async () => {
  await target?.end();
  target = undefined;
});

/** Makes the request in a process that is killed at `step`; false when it came to its end before that. */
function requestAndDie(request: Readonly<Record<string, unknown>>, step: number): boolean {
  const { signal, status, stdout } = spawnSync(
    process.execPath,
    [requester, engine, JSON.stringify(request)],
    {
      env: { ...process.env, KCARE_ENGINE_DIE_AT: `${step}` },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  if (signal === 'SIGKILL') return true;
  expect(stdout).toMatch(/^(done|returned|committed)/);
  expect(status).toBe(0);
  return false;
}

const soon = { timeout: 10_000, interval: 2 };

/** Runs `request` with one more step before death each time; gives the number of steps of a whole request. */
async function dieAtEveryStep(
  program: Program,
  request: () => Readonly<Record<string, unknown>>,
  check: () => void | Promise<void>,
): Promise<number> {
  for (let step = 1; ; step++) {
    const died = requestAndDie(request(), step);
    // The kernel detaches the threads of a dead tracer, and they restore themselves, when they get a processor.
    await expect.poll(() => statusLine(program.pid, 'TracerPid'), soon).toBe('0');
    await expect.poll(() => processState(program.pid), soon).toMatch(/[RS]/);
    await check();
    expect(program.isAlive, `killed at step ${step}`).toBe(true);
    if (!died) return step;
  }
}

describe('a target whose tracer is killed', () => {
  const noSignals = /^0+$/;

  const waits = ['read', 'clock_nanosleep', 'epoll_wait', 'compute'];

  it.each(waits)('in a remote call goes on with %s as if nothing had been', (kind) =>
    expectUnimpressed(kind, () => ({})),
  );

  it.each(waits)('in a function call goes on with %s as if nothing had been', (kind) =>
    expectUnimpressed(kind, (program) => ({
      function: /spoil (0x[0-9a-f]+)/.exec(program.lines[0] ?? '')?.[1],
    })),
  );

  async function expectUnimpressed(
    kind: string,
    more: (program: Program) => Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const program = await startFixture('waits', kind);
    target = program;
    const blocked = statusLine(program.pid, 'SigBlk');
    const call = `0x${findSignalReturn(program.pid).toString(16)}`;
    const steps = await dieAtEveryStep(
      program,
      () => ({ pid: program.pid, call, ...more(program) }),
      () => expect.poll(() => statusLine(program.pid, 'SigBlk'), soon).toBe(blocked),
    );
    expect(blocked).toMatch(noSignals);
    expect(steps).toBeGreaterThan(20);
    await sleep(100);
    program.writeLine('stop');
    const report = JSON.parse(await program.waitForLine(/rounds/)) as { wrong: number; eintr: number };
    expect(report.wrong).toBe(0);
    // Between the stop and the first change nobody can restart epoll_wait for a tracer that is dead.
    if (kind !== 'epoll_wait') expect(report.eintr).toBe(0);
  }

  it('in a commit computes with either function', async () => {
    const program = await startFixture('functions', '1', '2');
    target = program;
    const ready = program.lines.find((line) => line.startsWith('ready')) ?? '';
    const { answer, other, state } = JSON.parse(ready.slice('ready '.length)) as Record<string, string[]> & {
      state: string;
    };
    const [from = '', to = ''] = [answer?.[0], other?.[0]];
    const original = readMemory(program.pid, BigInt(from), 5);
    const diverted = Buffer.alloc(5, 0xe9);
    diverted.writeInt32LE(Number(BigInt(to) - BigInt(from)) - 5, 1);
    const read = (): string => readMemory(program.pid, BigInt(from), 5).toString('hex');
    const commit = (): Readonly<Record<string, unknown>> => {
      const expected = read();
      const replacement = (expected === original.toString('hex') ? diverted : original).toString('hex');
      return {
        pid: program.pid,
        commit: {
          writes: [{ address: from, expected, replacement }],
          states: [{ address: state, during: 1, after: 2 }],
        },
      };
    };
    const steps = await dieAtEveryStep(program, commit, () =>
      expect([original.toString('hex'), diverted.toString('hex')]).toContain(read()),
    );
    expect(steps).toBeGreaterThan(20);
    program.writeLine('stop');
    expect(JSON.parse(await program.waitForLine(/ones/))).toMatchObject({ wrong: 0 });
  });
});
