// Remote calls against real processes that wait in every kind of system call (R1, R5).
import { afterEach, describe, expect, it } from 'vitest';
import { advance } from '../../src/base/address.js';
import { nativeEngine } from '../../src/addon/index.js';
import { readMemory } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { disturbWhileWaiting, mapAndUnmap, stopWaiting } from './disturb.js';
import {
  callIn,
  findSignalReturn,
  mapCall,
  pageSize,
  processState,
  resultsIn,
  startFixture,
  statusLine,
  stopAllThreads,
  unmapCall,
} from './target.js';

const readWrite = 3n;
let target: Program | undefined;

async function start(...parameters: readonly [string, ...string[]]): Promise<Program> {
  target = await startFixture(...parameters);
  return target;
}

afterEach(async () => {
  await target?.end();
  target = undefined;
});

describe('a remote call and a stop of all threads', () => {
  const kinds = 'read poll select epoll_wait clock_nanosleep futex sigtimedwait semtimedop receive compute';
  it.each(kinds.split(' '))('go unnoticed by a program in %s', async (kind) => {
    await disturbWhileWaiting(await start('waits', kind));
  });

  it('makes several calls within one stop and ends at the first failure', async () => {
    const { pid } = await start('waits', 'poll');
    const getpid = { number: 39, arguments: [] };
    const badUnmap = unmapCall(1n, pageSize);
    expect(resultsIn(pid, [getpid, getpid])).toEqual([BigInt(pid), BigInt(pid)]);
    expect(resultsIn(pid, [getpid, badUnmap, getpid])).toEqual([BigInt(pid), -22n]);
  });

  it('marks a mapping before the program goes on', async () => {
    const { pid } = await start('waits', 'poll');
    const mark = Buffer.from('kcare');
    const [address = -1n] = resultsIn(pid, [{ ...mapCall(pageSize, readWrite), mark }]);
    expect(readMemory(pid, address, mark.length)).toEqual(mark);
  });

  it('serves a stopped process, which stays stopped', async () => {
    const program = await start('waits', 'clock_nanosleep');
    process.kill(program.pid, 'SIGSTOP');
    await expect.poll(() => processState(program.pid)).toBe('T');
    expect(mapAndUnmap(program.pid)).toBe(true);
    await expect.poll(() => processState(program.pid)).toBe('T');
    process.kill(program.pid, 'SIGCONT');
    expect(await stopWaiting(program)).toMatchObject({ eintr: 0, wrong: 0 });
  });

  it('says gone for a process that has ended', async () => {
    const program = await start('waits', 'poll');
    const signalReturn = findSignalReturn(program.pid);
    await program.end();
    expect(nativeEngine.call(program.pid, [], { signalReturn, timeoutMs: 100 })).toEqual({ outcome: 'gone' });
  });

  it('refuses a process that another tracer holds', async () => {
    const program = await start('signals', 'traced');
    const pid = Number(program.lines[0]?.replace('ready ', ''));
    await expect.poll(() => statusLine(pid, 'TracerPid')).toBe(`${program.pid}`);
    expect(() => callIn(pid, [])).toThrow(expect.objectContaining({ code: 'TARGET_TRACED' }));
    expect(() => stopAllThreads(pid)).toThrow(expect.objectContaining({ code: 'TARGET_TRACED' }));
  });

  it('refuses an address that is no signal return trampoline', async () => {
    const { pid } = await start('waits', 'poll');
    const signalReturn = advance(findSignalReturn(pid), 1);
    expect(() => nativeEngine.call(pid, [], { signalReturn, timeoutMs: 100 })).toThrow(
      expect.objectContaining({ code: 'TARGET_MEMORY' }),
    );
  });

  it('refuses a system call that might have to be restarted', async () => {
    const { pid } = await start('waits', 'poll');
    expect(() => callIn(pid, [{ number: 0, arguments: [] }])).toThrow(/must not be made/);
  });

  it('maps executable memory in a process whose seccomp filter forbids that, and leaves the filter in force', async () => {
    const readExecute = 5n;
    const program = await start('confined');
    const [address = -1n] = resultsIn(program.pid, [mapCall(pageSize, readExecute)]);
    expect(address).toBeGreaterThan(0n);
    expect(resultsIn(program.pid, [unmapCall(address, pageSize)])).toEqual([0n]);
    expect(program.isAlive).toBe(true);
    program.writeLine('try');
    await expect.poll(() => program.isAlive).toBe(false);
  });
});
