// R1 and R2: the patcher is killed at every step of its work, and the target never notices; the next run sets it right.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import { writePatch, type Patch } from '../../src/patchfile/index.js';
import {
  compileTarget,
  handmadePatch,
  released,
  returns,
  type Compiled,
} from '../../fixtures/support/handmade.js';

import { random } from '../random.js';
import { DoomedPatchers } from './doomed-patcher.js';

const mostSteps = 1000;

describe('a patcher that is killed', () => {
  let directory: string;
  let compiled: Compiled;
  let program: Program;
  let intents: string;
  const patchers = new DoomedPatchers();

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'kcare-killed-'));
    compiled = compileTarget(directory);
    intents = join(directory, 'intents');
    mkdirSync(intents);
    for (const level of [1, 2]) writeFileSync(join(directory, `${level}.kpatch`), writePatch(patchOf(level)));
    program = await Program.start(compiled.program, ['2']);
    await program.waitForLine(/^ready/);
  });
  afterAll(async () => {
    await patchers.end();
    await program.end();
    rmSync(directory, { recursive: true, force: true });
  });

  /** The header of its image takes more than a page: a killed patcher may have written only a part of it. */
  function patchOf(level: number): Patch {
    const functions = { answer: returns(42 + level), call_back: returns(8 + level) };
    const { metadata, ...rest } = handmadePatch(compiled.library, level, functions);
    const next = random(level);
    const description = Array.from({ length: 1200 }, () => next().toString(36)).join('');
    return { ...rest, metadata: { ...metadata, description } };
  }

  const runAndDie = (action: 'apply' | 'unload', level: number, dieAt: number): Promise<boolean> =>
    patchers.runAndDie(
      { action, pid: program.pid, file: join(directory, `${level}.kpatch`), intents },
      dieAt,
    );

  async function run(action: 'apply' | 'unload', level: number): Promise<void> {
    const options = { waitMs: 5000, dryRun: false, intentDirectory: intents };
    const report =
      action === 'apply'
        ? await apply(program.pid, [released(patchOf(level))], options)
        : await unload(program.pid, options);
    expect(report.error).toBeUndefined();
  }

  async function answers(): Promise<string[]> {
    program.writeLine('answer');
    const answer = await program.waitForLine(/^answer /);
    program.writeLine('call');
    return [answer, await program.waitForLine(/^call /)];
  }

  const original = ['answer 42', 'call 11'];
  const patched = (level: number): string[] => [`answer ${42 + level}`, `call ${8 + level}`];

  /** Returns the mappings that were not there before. */
  async function expectUntouched(mappings: readonly string[]): Promise<string[]> {
    expect(await answers()).toEqual(original);
    expect(inspect(program.pid)).toEqual([]);
    expect(countChangedCodeBytes(program.pid, compiled.library)).toBe(0);
    return readMappings(program.pid).filter((line) => !mappings.includes(line));
  }

  it.each([
    ['apply', 0, 'apply', 1],
    ['upgrade', 1, 'apply', 2],
    ['unload', 1, 'unload', 0],
  ] as const)(
    'during %s: the target goes on, and the next run sets it right',
    async (_, before, action, level) => {
      const mappings = readMappings(program.pid);
      let dieAt = 1;
      for (; dieAt < mostSteps; dieAt++) {
        if (before > 0) await run('apply', before);
        const isDone = await runAndDie(action, level, dieAt);
        const inBetween = await answers();
        for (const [index, answer] of inBetween.entries()) {
          expect([original[index], patched(1)[index], patched(2)[index]]).toContain(answer);
        }
        await run(action, level);
        expect(await answers()).toEqual(level === 0 ? original : patched(level));
        await run('unload', 0);
        expect(await expectUntouched(mappings), `killed at step ${dieAt}`).toEqual([]);
        expect(readdirSync(intents)).toEqual([]);
        if (isDone) break;
      }
      expect(dieAt).toBeGreaterThan(20);
      expect(dieAt).toBeLessThan(mostSteps);
    },
  );
});
