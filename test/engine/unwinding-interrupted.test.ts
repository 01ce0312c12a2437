// R1 and R2 with unwind tables: the patcher is killed at every step, while threads of the target throw without pause.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import { UnwindingWorkshop } from './unwinding-workshop.js';

const mostSteps = 1000;

describe('a patcher that is killed', () => {
  const workshop = new UnwindingWorkshop();
  const intentDirectory = join(workshop.directory, 'intents');
  const options = { waitMs: 5000, dryRun: false, intentDirectory };
  let program: Program;

  beforeAll(async () => {
    await workshop.build([1, 2]);
    program = await Program.start(workshop.program);
    await program.waitForLine(/^ready/);
    program.writeLine('storm 2');
  });
  afterAll(async () => {
    await program.end();
    workshop.close();
  });

  /** Runs an action in a process that dies at step `dieAt`; true when it lived to its end. */
  function runAndDie(action: 'apply' | 'unload', level: number, dieAt: number): boolean {
    const driver = join(import.meta.dirname, 'driver.mjs');
    const { signal, status, stdout, stderr } = spawnSync(
      process.execPath,
      [driver, action, String(program.pid), workshop.file(level), intentDirectory],
      { encoding: 'utf8', env: { ...process.env, KCARE_ENGINE_DIE_AT: String(dieAt) } },
    );
    if (signal === 'SIGKILL') return false;
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^(?:applied|upgraded|unchanged|unloaded) $/m);
    return true;
  }

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
        const isDone = runAndDie(action, level, dieAt);
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
