// Exceptions, pthread_cancel and backtrace() go through patched functions, and stay right while patches come and go.
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { apply, inspect, unload, type TargetReport } from '../../src/engine/index.js';
import { UnwindingWorkshop } from './unwinding-workshop.js';

const patient = { waitMs: 5000, dryRun: false };
const hasty = { waitMs: 200, dryRun: false };

describe('a process', () => {
  const workshop = new UnwindingWorkshop();
  let program: Program;

  beforeAll(() => workshop.build([1, 2]));
  afterEach(() => program.end());
  afterAll(() => workshop.close());

  async function start(file = workshop.program): Promise<readonly string[]> {
    program = await Program.start(file);
    await program.waitForLine(/^ready/);
    return readMappings(program.pid);
  }

  async function ask(question: string): Promise<string> {
    program.writeLine(question);
    return program.waitForLine(new RegExp(`^${question} ?`));
  }

  async function expectUnwinding(): Promise<void> {
    expect(await ask('throw')).toBe('throw -42');
    expect(await ask('cancel')).toBe('cancel 1 1 cancelled');
    expect(await ask('trace')).toMatch(/ main .*_start$/);
  }

  function applyLevel(level: number, options = patient): Promise<TargetReport> {
    return apply(program.pid, [workshop.patch(level)], options);
  }

  /** Nothing was left undone. */
  function expectWhole(report: TargetReport, result: TargetReport['result']): void {
    expect(report).toMatchObject({ result });
    expect(report.error).toBeUndefined();
    expect(report.unregistered).toBeUndefined();
    expect(report.kept).toBeUndefined();
  }

  it('in C++ unwinds through a function that is patched, upgraded and unloaded', async () => {
    await start();
    await expectUnwinding();
    const before = readMappings(program.pid);
    for (const level of [1, 2]) {
      expectWhole(await applyLevel(level), level === 1 ? 'applied' : 'upgraded');
      expect(await ask('answer')).toBe(`answer ${41 + level}`);
      await expectUnwinding();
      expectWhole(await applyLevel(level), 'unchanged');
    }
    expectWhole(await unload(program.pid, patient), 'unloaded');
    expect(await ask('answer')).toBe('answer 41');
    await expectUnwinding();
    expect(readMappings(program.pid)).toEqual(before);
  });

  it('whose threads throw all the time is patched, upgraded and unloaded in rounds', async () => {
    await start();
    program.writeLine('storm 4');
    for (let round = 0; round < 30; round++) {
      expectWhole(await applyLevel(1), 'applied');
      expectWhole(await applyLevel(2), 'upgraded');
      expect(await ask('throw')).toBe('throw -42');
      expectWhole(await unload(program.pid, patient), 'unloaded');
      const [, thrown = '0', wrong] = /thrown (\d+) wrong (\d+)/.exec(await ask('thrown')) ?? [];
      expect(wrong).toBe('0');
      expect(Number(thrown)).toBeGreaterThan(0);
    }
    expect(inspect(program.pid)).toEqual([]);
  });

  it('that is always inside its unwinder is patched, and registers and unloads when it comes out', async () => {
    await start();
    program.writeLine('inside');
    expect(await ask('answer')).toBe('answer 41');
    const reason = /no thread came to a place/;
    for (const result of ['applied', 'unchanged'] as const) {
      const report = await applyLevel(1, hasty);
      expect(report).toMatchObject({ result, unregistered: [{ objectName: 'libunit.so' }] });
      expect(report.unregistered?.[0]?.reason).toMatch(reason);
      expect(await ask('answer')).toBe('answer 42');
    }
    program.writeLine('outside');
    expectWhole(await applyLevel(1), 'unchanged');
    await expectUnwinding();

    program.writeLine('inside');
    expect(await ask('answer')).toBe('answer 42');
    for (const result of ['unloaded', 'unchanged'] as const) {
      const report = await unload(program.pid, hasty);
      expect(report).toMatchObject({ result, kept: [{}] });
      expect(report.kept?.[0]?.reason).toMatch(reason);
      expect(inspect(program.pid)).toMatchObject([{ state: 'removing' }]);
      expect(await ask('answer')).toBe('answer 41');
    }
    program.writeLine('outside');
    await ask('answer');
    expectWhole(await unload(program.pid, patient), 'unloaded');
    expect(inspect(program.pid)).toEqual([]);
    await expectUnwinding();
  });

  it('that is always inside its unwinder and was never registered is unloaded all the same', async () => {
    const before = await start();
    program.writeLine('inside');
    expect(await ask('answer')).toBe('answer 41');
    expect((await applyLevel(1, hasty)).unregistered).toHaveLength(1);
    expectWhole(await unload(program.pid, hasty), 'unloaded');
    expect(readMappings(program.pid)).toEqual(before);
  });

  it('that loads its unwinder after the patch is registered by the next run', async () => {
    await start(workshop.late);
    expectWhole(await applyLevel(1), 'applied');
    // backtrace() loads the unwinder, which does not know the patch.
    expect(await ask('trace')).toBe('trace 2');
    expectWhole(await applyLevel(1), 'unchanged');
    const whole = await ask('trace');
    expect(whole).toMatch(/^trace [5-9]$/);
    expectWhole(await unload(program.pid, patient), 'unloaded');
    expect(await ask('trace')).toBe(whole);
  });

  it('that unloads its unwinder, and perhaps loads it again, is unloaded without a trace', async () => {
    const before = await start(workshop.late);
    const unwinder = (): string[] => readMappings(program.pid).filter((line) => line.includes('libgcc_s'));
    for (const isLoadedAgain of [false, true]) {
      expect(await ask('load')).toBe('load 1');
      const place = unwinder();
      expectWhole(await applyLevel(1), 'applied');
      expect(await ask('close')).toBe('close 0');
      expect(unwinder()).toEqual([]);
      if (isLoadedAgain) {
        expect(await ask('load')).toBe('load 1');
        // At the same place, but knowing nothing: taking back the tables there would abort the process.
        expect(unwinder()).toEqual(place);
      }
      expectWhole(await unload(program.pid, patient), 'unloaded');
      expect(await ask('answer')).toBe('answer 41');
      if (isLoadedAgain) await ask('close');
      expect(readMappings(program.pid)).toEqual(before);
    }
  });

  it('that was forked while a thread held the lock of the unwinder is not sent to wait for it', async () => {
    await start(workshop.orphan);
    expectWhole(await applyLevel(1), 'applied');
    const child = Number((await ask('fork')).replace('fork ', ''));
    const call = (): string => readFileSync(`/proc/${child}/syscall`, 'utf8');
    await expect.poll(call).toMatch(/^34 /);
    const waiting = call();
    const report = await unload(child, hasty);
    expect(report).toMatchObject({ result: 'unloaded', kept: [{}] });
    expect(report.kept?.[0]?.reason).toMatch(/fork/);
    expect(inspect(child)).toMatchObject([{ state: 'removing' }]);
    expect(call()).toBe(waiting);
    expectWhole(await unload(program.pid, patient), 'unloaded');
    expect(await ask('answer')).toBe('answer 41');
  });
});
