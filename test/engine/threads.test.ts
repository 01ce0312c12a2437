// Unusual sets of threads: a main thread that ended before the others, and threads that come and go all the time.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { nativeEngine } from '../../src/addon/index.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import { discover } from '../../src/host/index.js';
import { listProcesses, readStatus } from '../../src/proc/index.js';
import {
  compileTarget,
  handmadePatch,
  released,
  returns,
  type Compiled,
} from '../../fixtures/support/handmade.js';

const patient = { waitMs: 5000, dryRun: false };
let directory: string;
let compiled: Compiled;
let program: Program | undefined;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-threads-'));
  compiled = compileTarget(directory);
});
afterEach(async () => {
  await program?.end();
  program = undefined;
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function start(...parameters: string[]): Promise<Program> {
  program = await Program.start(compiled.program, parameters);
  await program.waitForLine(/^ready/);
  return program;
}

async function answer(target: Program): Promise<string> {
  target.writeLine('answer');
  return target.waitForLine(/^answer /);
}

async function applyAndUnload(target: Program, rounds: number): Promise<void> {
  const patch = released(handmadePatch(compiled.library, 1, { answer: returns(43) }));
  for (let round = 0; round < rounds; round++) {
    expect(await apply(target.pid, [patch], patient)).toMatchObject({ result: 'applied' });
    expect(await answer(target)).toBe('answer 43');
    expect(inspect(target.pid)).toMatchObject([{ state: 'active' }]);
    expect(await unload(target.pid, patient)).toMatchObject({ result: 'unloaded' });
    expect(await answer(target)).toBe('answer 42');
  }
  target.writeLine('seen');
  expect(await target.waitForLine(/seen$/)).toBe('42 43 seen');
}

describe('a process', () => {
  it('whose main thread has ended is found, called, patched and unloaded', async () => {
    const target = await start('2', 'alone');
    await expect.poll(() => readStatus(target.pid).state).toBe('Z');
    expect(listProcesses()).toContain(target.pid);
    expect(discover({ pids: [target.pid] })).toMatchObject({
      processes: [{ executable: compiled.program }],
      unreadable: [],
    });
    await applyAndUnload(target, 20);
  });

  it('with a vfork child is busy, untouched, and patched as soon as the child has ended', async () => {
    const target = await start('1');
    const before = readMappings(target.pid);
    target.writeLine('share');
    await expect.poll(() => nativeEngine.findMemorySharer(target.pid)).toBeGreaterThan(0);
    const sharer = nativeEngine.findMemorySharer(target.pid);
    const patch = released(handmadePatch(compiled.library, 1, { answer: returns(43) }));
    const report = await apply(target.pid, [patch], { ...patient, waitMs: 0 });
    expect(report).toMatchObject({ result: 'busy', error: { code: 'TARGET_BUSY', details: { sharer } } });
    expect(report.pauseNs).toBeUndefined();
    expect(readMappings(target.pid).filter((line) => !before.includes(line) && / r.x/.test(line))).toEqual(
      [],
    );
    expect(await apply(target.pid, [patch], patient)).toMatchObject({ result: 'applied' });
    await target.waitForLine(/^alone$/);
    expect(await answer(target)).toBe('answer 43');
  });

  it('whose threads start and end all the time is patched and unloaded', async () => {
    const target = await start('1', 'churn');
    const threads = (): string[] => readdirSync(`/proc/${target.pid}/task`);
    const expectNewThreads = async (): Promise<void> => {
      const seen = new Set(threads());
      await expect
        .poll(() => threads().some((tid) => !seen.has(tid)), { interval: 1, timeout: 10_000 })
        .toBe(true);
    };
    await expectNewThreads();
    await applyAndUnload(target, 40);
    await expectNewThreads();
  });
});
