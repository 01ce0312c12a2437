// R1 and R2 with unwind tables: the patcher is killed at every step, while threads of the target throw without pause.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import { DoomedPatchers } from './doomed-patcher.js';
import { UnwindingWorkshop } from './unwinding-workshop.js';

const mostSteps = 1000;

describe('a patcher that is killed', () => {
  const workshop = new UnwindingWorkshop();
  const intentDirectory = join(workshop.directory, 'intents');
  const options = { waitMs: 5000, dryRun: false, intentDirectory };
  let program: Program;
  const patchers = new DoomedPatchers();

  beforeAll(async () => {
    await workshop.build([1, 2]);
    program = await Program.start(workshop.program);
    await program.waitForLine(/^ready/);
    program.writeLine('storm 2');
  });
  afterAll(async () => {
    await patchers.end();
    await program.end();
    workshop.close();
  });

  const runAndDie = (action: 'apply' | 'unload', level: number, dieAt: number): Promise<boolean> =>
    patchers.runAndDie(
      { action, pid: program.pid, file: workshop.file(level), intents: intentDirectory },
      dieAt,
    );

  async function run(action: 'apply' | 'unload', level: number): Promise<void> {
    const report =
      action === 'apply'
        ? await apply(program.pid, [workshop.patch(level)], options)
        : await unload(program.pid, options);
    expect(report.error).toBeUndefined();
    expect(report.unregistered).toBeUndefined();
    expect(report.kept).toBeUndefined();
  }

  function anonymousCode(): number {
    return readMappings(program.pid).filter((line) => line.trimEnd().endsWith('r-xp')).length;
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

  it.each([
    ['apply', 0, 'apply', 1],
    ['upgrade', 1, 'apply', 2],
    ['unload', 1, 'unload', 1],
  ] as const)(
    'during %s with unwind tables: the target unwinds all the time, and the next run sets it right',
    async (_, before, action, level) => {
      const codeBefore = anonymousCode();
      let dieAt = 1;
      for (; dieAt < mostSteps; dieAt++) {
        if (before > 0) await run('apply', before);
        const isDone = await runAndDie(action, level, dieAt);
        await expectUnwinding();
        await run(action, level);
        expect(await ask('answer')).toBe(`answer ${action === 'apply' ? 41 + level : 41}`);
        await expectUnwinding();
        await run('unload', 0);
        await expectUnwinding();
        expect(inspect(program.pid)).toEqual([]);
        if (isDone) break;
      }
      expect(await ask('thrown')).toMatch(/^thrown [1-9]\d* wrong 0$/);
      expect(anonymousCode()).toBe(codeBefore);
      expect(dieAt).toBeGreaterThan(40);
      expect(dieAt).toBeLessThan(mostSteps);
    },
  );
});
