// kcarectl that is told to end while it changes processes: what it does then, says and leaves to the next run.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { handmadePatch, returns } from '../../fixtures/support/handmade.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { Program } from '../../fixtures/support/program.js';
import { untilThreadWaits } from '../../fixtures/support/threads.js';
import { packageRoot } from '../../src/base/package-root.js';
import { AnswersWorld } from '../host/answers.js';

let world: AnswersWorld;
let host: LocalHost;
const running: Program[] = [];

// mov $34,%eax; syscall; jmp: pause(2) for ever.
const pauses = { code: 'b8220000000f05ebf7' };

beforeAll(async () => {
  world = new AnswersWorld();
  const functions = { answer: returns(43), wait_inside: pauses };
  const patch = handmadePatch(world.compiled.library, 1, functions);
  host = await LocalHost.create(join(world.directory, 'host'), [world.writePatchFile(patch, 'level-1')]);
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((program) => program.end()));
});
afterAll(() => world.remove());

/** With a thread that never rests. */
async function startBusy(): Promise<Program> {
  const program = await Program.start(world.compiled.program, ['1']);
  running.push(program);
  await program.waitForLine(/^ready/);
  return program;
}

/** Four processes, of which the inner two have a thread inside a function that is to be changed. */
async function startFour(action: string): Promise<Program[]> {
  const targets = [await startBusy(), await startBusy(), await startBusy(), await startBusy()];
  if (action === '--lib-unload') expect((await run('--lib-update', targets, 60)).exitCode).toBe(0);
  for (const target of targets.slice(1, 3)) {
    target.writeLine('block');
    await untilThreadWaits(target.pid);
  }
  return targets;
}

function run(
  action: string,
  targets: readonly Program[],
  waitSeconds = 1,
): ReturnType<LocalHost['kcarectl']> {
  return host.kcarectl(action, '--pid', pidsOf(targets), '--wait', `${waitSeconds}`, '--json');
}

const pidsOf = (targets: readonly Program[]): string => targets.map(({ pid }) => pid).join(',');

/** Starts kcarectl and sends it signals as soon as the first target has changed; it is about to come to the second one then. */
async function interrupt(action: string, targets: readonly Program[], signals: readonly NodeJS.Signals[]) {
  const words = ['--root', host.root, action, '--pid', pidsOf(targets), '--wait', '60', '--json'];
  const kcarectl = spawn(join(packageRoot(), 'bin', 'kcarectl'), words, {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<{ exitCode: number | null; signal: string | null }>((resolve) => {
    kcarectl.once('exit', (exitCode, signal) => resolve({ exitCode, signal }));
  });
  const [first] = targets;
  if (!first) throw new Error('There is no target.');
  const before = await world.answer(first);
  while ((await world.answer(first)) === before) await sleep(1);
  for (const signal of signals) kcarectl.kill(signal);
  return { stdout: await text(kcarectl.stdout), ...(await ended) };
}

describe('kcarectl', () => {
  it.each([
    ['--lib-update', 'SIGTERM', 'applied', ['answer 43', 'answer 42', 'answer 42', 'answer 42']],
    ['--lib-unload', 'SIGINT', 'unloaded', ['answer 42', 'answer 43', 'answer 43', 'answer 43']],
  ] as const)(
    'that is told to end during %s by %s begins no other process and says so',
    async (action, signal, done, expected) => {
      const targets = await startFour(action);
      const { stdout, ...ended } = await interrupt(action, targets, [signal]);
      expect(ended).toEqual({ exitCode: 4, signal: null });
      const result = JSON.parse(stdout) as { processes: { pid: number; result: string }[] };
      const results = targets.map(({ pid }) => result.processes.find((one) => one.pid === pid));
      expect(results[0]).toMatchObject({ result: done });
      // The signal may come before the second one is begun.
      expect(['busy', 'not-reached']).toContain(results[1]?.result);
      const level = action === '--lib-unload' ? [{ level: 1 }] : [];
      for (const outcome of results.slice(2)) {
        expect(outcome).toMatchObject({ result: 'not-reached', comm: 'target', objects: level });
        expect(outcome).toMatchObject({ error: { code: 'RUN_ENDED', hint: 'Run the command again.' } });
        expect(JSON.stringify(outcome)).toContain(`${signal} ended the run`);
      }
      expect(await Promise.all(targets.map((target) => world.answer(target)))).toEqual(expected);
      const again = await run(action, targets);
      expect(again.exitCode).toBe(4);
      for (const target of targets.slice(3)) expect(await world.answer(target)).toBe(expected[0]);
    },
  );

  it('that is told to end twice is gone at once, and keeps no lock', async () => {
    const targets = await startFour('--lib-update');
    // Both signals are there when it goes on.
    const signals = ['SIGSTOP', 'SIGINT', 'SIGTERM', 'SIGCONT'] as const;
    const { stdout, exitCode, signal } = await interrupt('--lib-update', targets, signals);
    expect({ stdout, exitCode }).toEqual({ stdout: '', exitCode: null });
    expect(['SIGINT', 'SIGTERM']).toContain(signal);
    for (const target of targets.slice(1)) expect(await world.answer(target)).toBe('answer 42');
    const [first, , , last] = targets;
    if (!first || !last) throw new Error('There are no targets.');
    expect((await run('--lib-update', [first, last])).exitCode).toBe(0);
    expect(await world.answer(last)).toBe('answer 43');
  });
});
