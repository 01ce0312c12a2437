// Signals of the target while it is worked on: none lost, none doubled, none made (R5).
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { mapCall, pageSize, resultsIn, startFixture, stopAllThreads, unmapCall } from './target.js';

let target: Program | undefined;

afterEach(async () => {
  await target?.end();
  target = undefined;
});

/** Calls and stops in turn until the program prints its report. */
async function disturbUntilReport(mode: string): Promise<{ report: unknown; disturbances: number }> {
  const program = await startFixture('signals', mode);
  target = program;
  let report: string | undefined;
  void program.waitForLine(/^\{/).then((line) => (report = line));
  let disturbances = 0;
  for (; report === undefined; disturbances++) {
    disturb(program.pid);
    await sleep(1);
  }
  return { report: JSON.parse(report), disturbances };
}

function disturb(pid: number): void {
  const [address = -1n] = resultsIn(pid, [mapCall(pageSize, 3n)]);
  resultsIn(pid, [unmapCall(address, pageSize)]);
  expect(stopAllThreads(pid).outcome).toBe('committed');
}

describe('a process that is called and stopped over and over', () => {
  it('handles each of 20,000 queued signals once and in order', async () => {
    const { report, disturbances } = await disturbUntilReport('storm');
    expect(report).toEqual({ sent: 20_000, handled: 20_000, outOfOrder: 0 });
    expect(disturbances).toBeGreaterThan(10);
  });

  it('has each wait for events ended by the signal that comes, and by nothing else', async () => {
    const { report, disturbances } = await disturbUntilReport('interrupt');
    expect(report).toMatchObject({ lost: 0, spurious: 0 });
    expect(disturbances).toBeGreaterThan(10);
  });

  it('causes no SIGCHLD in its parent, stopped or not', async () => {
    const program = await startFixture('signals', 'child');
    target = program;
    const pid = Number(program.lines[0]?.replace('ready ', ''));
    for (let round = 0; round < 50; round++) disturb(pid);
    program.writeLine('report');
    expect(JSON.parse(await program.waitForLine(/^\{/))).toEqual({ whileAlive: 0, waited: 0, atEnd: 1 });
  });
});
