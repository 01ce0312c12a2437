// Disturbs a program of the fixture `waits` by calls and stops; it must not notice any of them.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { mapCall, pageSize, resultsIn, statusLine, stopAllThreads, unmapCall } from './target.js';

export interface WaitReport {
  readonly rounds: number;
  readonly eintr: number;
  readonly wrong: number;
}

const readWrite = 3n;

export async function stopWaiting(program: Program): Promise<WaitReport> {
  program.writeLine('stop');
  return JSON.parse(await program.waitForLine(/rounds/)) as WaitReport;
}

/** Maps and unmaps memory in the target; true when both worked. */
export function mapAndUnmap(pid: number): boolean {
  const [address = -1n] = resultsIn(pid, [mapCall(16n * pageSize, readWrite)]);
  return address > 0n && resultsIn(pid, [unmapCall(address, 16n * pageSize)])[0] === 0n;
}

/** Sixty rounds of two calls and a stop of all threads. */
export async function disturbWhileWaiting(program: Program): Promise<void> {
  const before = readMappings(program.pid);
  for (let round = 0; round < 60; round++) {
    expect(mapAndUnmap(program.pid)).toBe(true);
    expect(stopAllThreads(program.pid).outcome).toBe('committed');
    await sleep(round % 7);
  }
  expect(readMappings(program.pid)).toEqual(before);
  expect(statusLine(program.pid, 'TracerPid')).toBe('0');
  const report = await stopWaiting(program);
  expect(report).toMatchObject({ eintr: 0, wrong: 0 });
  expect(report.rounds).toBeGreaterThan(0);
}
