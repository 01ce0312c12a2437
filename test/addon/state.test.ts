// Every part of a thread's state survives hundreds of calls and stops (R1, R5).
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { mapCall, pageSize, resultsIn, spoilIn, startFixture, stopAllThreads, unmapCall } from './target.js';

let target: Program | undefined;

afterEach(async () => {
  await target?.end();
  target = undefined;
});

describe('a thread that is called and stopped hundreds of times', () => {
  it('keeps registers, red zone, x87, MXCSR, vectors, flags, signal mask and stack, errno and thread pointer', async () => {
    const program = await startFixture('state');
    target = program;
    for (let round = 0; round < 250; round++) {
      const [address = -1n] = resultsIn(program.pid, [mapCall(pageSize, 3n)]);
      expect(resultsIn(program.pid, [unmapCall(address, pageSize)])).toEqual([0n]);
      expect(spoilIn(program)).toMatchObject({ outcome: 'returned', tid: program.pid });
      expect(stopAllThreads(program.pid).outcome).toBe('committed');
      await sleep(round % 5);
    }
    program.writeLine('stop');
    const { rounds, ...changes } = JSON.parse(await program.waitForLine(/rounds/)) as Record<string, number>;
    expect(rounds).toBeGreaterThan(20);
    expect(changes).toEqual({
      vector: 0,
      x87: 0,
      mxcsr: 0,
      flags: 0,
      general: 0,
      redZone: 0,
      sleeps: 0,
      kernel: 0,
      spoiled: 250,
    });
  });
});
