// Commits into real processes: all or nothing, never into code that a thread is inside of (R2, R3, R8, R11).
import { afterEach, describe, expect, it } from 'vitest';
import { readMemory } from '../../fixtures/support/process-memory.js';
import type { SuspectThread } from '../../src/addon/index.js';
import { distance, remoteAddress } from '../../src/base/address.js';
import { FunctionsTarget, rangeOf, states } from './functions-target.js';
import { statusLine } from './target.js';

let target: FunctionsTarget | undefined;

async function start(...parameters: Parameters<typeof FunctionsTarget.start>): Promise<FunctionsTarget> {
  target = await FunctionsTarget.start(...parameters);
  return target;
}

afterEach(async () => {
  await target?.program.end();
  target = undefined;
});

describe('a commit', () => {
  it('diverts a function under load to and fro, and every call gives one of the two answers', async () => {
    const running = await start(3, 5);
    for (let round = 0; round < 200; round++) {
      const divert = round % 2 === 0;
      expect(await running.commitPatiently(divert)).toMatchObject({ outcome: 'committed' });
      expect(running.state()).toBe(divert ? states.active : states.prepared);
    }
    expect(running.isOriginal()).toBe(true);
    expect(statusLine(running.pid, 'TracerPid')).toBe('0');
    const report = await running.finish();
    expect(report.wrong).toBe(0);
    expect(report.ones).toBeGreaterThan(0);
    expect(report.twos).toBeGreaterThan(0);
  });

  it('reaches threads that are created meanwhile', async () => {
    const running = await start(0, 2, 'churn');
    for (let round = 0; round < 100; round++) {
      expect(await running.commitPatiently(round % 2 === 0)).toMatchObject({ outcome: 'committed' });
    }
    const report = await running.finish();
    expect(report.wrong).toBe(0);
    expect(report.ones).toBeGreaterThan(0);
    expect(report.twos).toBeGreaterThan(0);
  });

  it('stops all of 1,000 threads', async () => {
    const running = await start(1, 1000);
    const outcome = await running.commitPatiently(true);
    expect(outcome).toMatchObject({ outcome: 'committed', statistics: { threads: 1002 } });
    expect((await running.finish()).wrong).toBe(0);
  });

  it('names the thread that sleeps in a function to be replaced, and writes nothing', async () => {
    const running = await start(1, 2, 'inside');
    const seen: SuspectThread[] = [];
    const outer = rangeOf(running.addresses.outer);
    const examine = (thread: SuspectThread): boolean => {
      seen.push(thread);
      return false;
    };
    const outcome = running.commit(true, { guarded: [rangeOf(running.addresses.other), outer], examine });
    expect(outcome).toMatchObject({
      outcome: 'busy',
      blocker: { tid: running.addresses.helper, range: 1, kind: 'stack' },
    });
    expect(running.isOriginal()).toBe(true);
    expect(running.state()).toBe(states.prepared);
    const [suspect] = seen;
    const [hit] = suspect?.hits ?? [];
    if (!suspect || !hit) throw new Error('The thread was not examined.');
    const offset = distance(suspect.stackStart, hit.address);
    expect(Buffer.from(suspect.stack).readBigUInt64LE(offset)).toBe(hit.value);
    expect(hit.value > outer.start && hit.value <= outer.end).toBe(true);
    const stackPointer = suspect.registers[19] ?? 0n;
    expect(stackPointer - 128n).toBe(suspect.stackStart);
  });

  it('lets the caller judge stale words on a stack', async () => {
    const running = await start(1, 2, 'stale');
    const guarded = [rangeOf(running.addresses.outer)];
    let examined = 0;
    const examine = ({ tid, hits }: SuspectThread): boolean => {
      expect(tid).toBe(running.addresses.helper);
      expect(hits.length).toBeGreaterThan(0);
      examined++;
      return true;
    };
    expect(running.commit(true, { guarded })).toMatchObject({ outcome: 'busy', blocker: { kind: 'stack' } });
    expect(running.commit(true, { guarded, examine })).toMatchObject({ outcome: 'committed' });
    expect(examined).toBe(1);
  });

  it('sees through a signal handler on an alternate stack', async () => {
    const running = await start(1, 2, 'handler');
    const guarded = [rangeOf(running.addresses.outer)];
    const outcome = running.commit(true, { guarded });
    expect(outcome).toMatchObject({ outcome: 'busy', blocker: { tid: running.addresses.helper, range: 0 } });
    expect(running.isOriginal()).toBe(true);
  });

  it('passes on what the examiner throws, and changes nothing', async () => {
    const running = await start(1, 2, 'inside');
    const examine = (): boolean => {
      throw new RangeError('no unwind table');
    };
    const guarded = [rangeOf(running.addresses.outer)];
    expect(() => running.commit(true, { guarded, examine })).toThrow(new RangeError('no unwind table'));
    expect(running.isOriginal()).toBe(true);
    expect(statusLine(running.pid, 'TracerPid')).toBe('0');
  });

  it('writes nothing when one place does not hold the expected bytes', async () => {
    const running = await start(1, 2);
    const { writes } = running.request(true);
    const address = rangeOf(running.addresses.other).start;
    const wrong = { address, expected: Buffer.alloc(5, 0xcc), replacement: Buffer.alloc(5, 0x90) };
    const found = readMemory(running.pid, address, 5);
    const outcome = running.commit(true, { writes: [...writes, wrong] });
    expect(outcome).toEqual({ outcome: 'mismatch', index: 1, found: new Uint8Array(found) });
    expect(running.isOriginal()).toBe(true);
    expect(running.state()).toBe(states.prepared);
  });

  it('undoes everything when a later write fails', async () => {
    const running = await start(1, 2);
    const unmapped = { address: remoteAddress(0x1000), during: 1, after: 2 };
    expect(() => running.commit(true, { states: [unmapped] })).toThrow(/memory/);
    expect(running.isOriginal()).toBe(true);
  });

  it('says gone when the process is killed meanwhile', async () => {
    const running = await start(1, 2, 'stale');
    const examine = (): boolean => {
      process.kill(running.pid, 'SIGKILL');
      return true;
    };
    const guarded = [rangeOf(running.addresses.outer)];
    expect(running.commit(true, { guarded, examine })).toEqual({ outcome: 'gone' });
    await running.program.end();
    expect(running.commit(true)).toEqual({ outcome: 'gone' });
  });
});
