// R1: patchers that know nothing of each other, each with a journal of its own, work on the same process in turn.
import { execFile } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { released } from '../../fixtures/support/handmade.js';
import { lockByte } from '../../src/addon/host.js';
import { apply } from '../../src/engine/index.js';
import { AnswersWorld } from '../host/answers.js';

const rival = join(import.meta.dirname, 'rival.mjs');
const rounds = '40';
let world: AnswersWorld;

beforeAll(() => {
  world = new AnswersWorld();
});
afterEach(() => world.end());
afterAll(() => world.remove());

it('the first runs of two journals make their changes each as a whole, and the process goes on', async () => {
  const target = await world.start();
  const tallies = await Promise.all(
    [43, 44].map(async (answer) => {
      const patch = world.writePatchFile(world.patch(1, answer), `answers-${answer}`);
      const journal = join(world.directory, `journal-${answer}`);
      expect(existsSync(journal)).toBe(false);
      const parameters = [rival, `${target.pid}`, patch, rounds, journal];
      const { stdout, stderr } = await promisify(execFile)(process.execPath, parameters);
      expect(stderr).toBe('');
      return JSON.parse(stdout) as Record<string, number>;
    }),
  );
  for (const tally of tallies)
    expect(['applied', 'upgraded', 'unloaded', 'unchanged']).toEqual(
      expect.arrayContaining(Object.keys(tally)),
    );
  expect(await world.answer(target)).toBe('answer 42');
});

it('waits for a patcher that has the process, and leaves the process to it for now', async () => {
  const target = await world.start();
  const options = { dryRun: false, intentDirectory: join(world.directory, 'journal') };
  const patches = [released(world.patch(1, 43))];
  const memory = openSync(`/proc/${target.pid}/mem`, 'r+');
  try {
    expect(lockByte(memory, 0, true)).toBe(true);
    const { result, error } = await apply(target.pid, patches, { ...options, waitMs: 0 });
    expect({ result, code: error?.code }).toEqual({ result: 'busy', code: 'TARGET_BUSY' });
    expect(await world.answer(target)).toBe('answer 42');
    const waiting = apply(target.pid, patches, { ...options, waitMs: 60_000 });
    lockByte(memory, 0, false);
    expect((await waiting).result).toBe('applied');
  } finally {
    closeSync(memory);
  }
  expect(await world.answer(target)).toBe('answer 43');
});
