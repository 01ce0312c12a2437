// Processes that share the target's memory without being its threads: a commit cannot stop them, so it waits (R1, R2).
import { execFileSync } from 'node:child_process';
import { openSync, closeSync, writeSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { readMemory } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { nativeEngine } from '../../src/addon/index.js';
import { FunctionsTarget, rangeOf, states } from './functions-target.js';
import { processState, statusLine } from './target.js';

let target: FunctionsTarget | undefined;

async function start(busy: number, mode: string): Promise<FunctionsTarget> {
  target = await FunctionsTarget.start(busy, 1, mode);
  return target;
}

afterEach(async () => {
  await target?.program.end();
  target = undefined;
});

function sharerOf({ pid, addresses }: FunctionsTarget): number {
  return readMemory(pid, BigInt(addresses.sharer), 4).readUInt32LE();
}

function setWord(pid: number, address: string): void {
  const memory = openSync(`/proc/${pid}/mem`, 'r+');
  try {
    writeSync(memory, Buffer.from([1, 0, 0, 0]), 0, 4, Number(BigInt(address)));
  } finally {
    closeSync(memory);
  }
}

function expectUntouched(running: FunctionsTarget): void {
  expect(running.isOriginal()).toBe(true);
  expect(running.state()).toBe(states.prepared);
  expect(statusLine(running.pid, 'TracerPid')).toBe('0');
}

describe('a process that shares the memory of the target', () => {
  it.each(['clone', 'vfork'])('made by %s keeps a commit from writing, until it ends', async (mode) => {
    const running = await start(1, mode);
    await expect.poll(() => sharerOf(running)).toBeGreaterThan(0);
    const sharer = sharerOf(running);
    expect(nativeEngine.findMemorySharer(running.pid)).toBe(sharer);
    const outcome = running.commit(true);
    expect(outcome).toMatchObject({ outcome: 'busy', statistics: { threads: 0 } });
    expect(outcome).toHaveProperty('reason', expect.stringContaining(`process ${sharer} shares the memory`));
    expectUntouched(running);
    process.kill(sharer, 'SIGKILL');
    await expect.poll(() => nativeEngine.findMemorySharer(running.pid)).toBeUndefined();
    expect(await running.commitPatiently(true)).toMatchObject({ outcome: 'committed' });
  });

  it('is found also when it is made while threads are being stopped', async () => {
    const running = await start(1, 'late');
    const guarded = [rangeOf(running.addresses.outer)];
    const examine = (): boolean => {
      if (sharerOf(running) === 0) setWord(running.pid, running.addresses.share);
      const deadline = performance.now() + 2000;
      while (sharerOf(running) === 0 && performance.now() < deadline);
      return true;
    };
    const outcome = running.commit(true, { guarded, examine });
    expect(outcome).toMatchObject({
      outcome: 'busy',
      reason: expect.stringContaining(`process ${sharerOf(running)} shares`) as unknown,
    });
    expectUntouched(running);
    await expect.poll(() => processState(sharerOf(running))).toBe('S');
    expect((await running.finish()).wrong).toBe(0);
  });

  it('is found from the younger one of the two as well, which has executed no program of its own', async () => {
    const running = await start(1, 'late');
    // Looks at the youngest go back by some ids.
    for (let count = 0; count < 40; count++) execFileSync('/bin/true');
    setWord(running.pid, running.addresses.share);
    await expect.poll(() => sharerOf(running)).toBeGreaterThan(0);
    expect(sharerOf(running) - running.pid).toBeGreaterThan(40);
    expect(nativeEngine.findMemorySharer(sharerOf(running))).toBe(running.pid);
    process.kill(sharerOf(running), 'SIGKILL');
  });

  it('is found in one look for many targets, also while other processes begin and end', async () => {
    const running = await start(1, 'clone');
    await expect.poll(() => sharerOf(running)).toBeGreaterThan(0);
    const others = [await FunctionsTarget.start(1, 1), await FunctionsTarget.start(1, 1)];
    const unrest = await Program.start('sh', ['-c', 'while :; do /bin/true; (/bin/true); done']);
    try {
      // Longer than one look is valid; the first target of a run is looked at in another way.
      const end = performance.now() + 1500;
      while (performance.now() < end) {
        for (const { pid } of others) expect(nativeEngine.findMemorySharer(pid)).toBeUndefined();
        expect(nativeEngine.findMemorySharer(running.pid)).toBe(sharerOf(running));
      }
    } finally {
      await unrest.end();
      for (const { program } of others) await program.end();
    }
    process.kill(sharerOf(running), 'SIGKILL');
  });

  it('is not any other process: a fork, a thread, or the starter', async () => {
    const running = await start(1, 'churn');
    for (let round = 0; round < 50; round++) {
      expect(nativeEngine.findMemorySharer(running.pid)).toBeUndefined();
    }
  });
});
