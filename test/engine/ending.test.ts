// The patcher's own end: it runs out of memory, is stopped, is killed while it is stopped. The target goes on (R1).
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compileTarget, handmadePatch, released, returns } from '../../fixtures/support/handmade.js';
import type { Compiled } from '../../fixtures/support/handmade.js';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import { writePatch, type Patch } from '../../src/patchfile/index.js';

const mebibyte = 1024 * 1024;

let directory: string;
let compiled: Compiled;
let program: Program;
let intents: string;
let patch: Patch;
let mappings: string[];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-ending-'));
  compiled = compileTarget(directory);
  intents = join(directory, 'intents');
  mkdirSync(intents);
  patch = handmadePatch(compiled.library, 1, { answer: returns(43), call_back: returns(9) });
  writeFileSync(join(directory, '1.kpatch'), writePatch(patch));
  program = await Program.start(compiled.program, ['2']);
  await program.waitForLine(/^ready/);
  mappings = readMappings(program.pid);
});
afterAll(async () => {
  await program.end();
  rmSync(directory, { recursive: true, force: true });
});

/** The command line of a patcher, which Node runs with these options. */
function patcher(...nodeOptions: readonly string[]): [string, ...string[]] {
  const driver = join(import.meta.dirname, 'driver.mjs');
  const words = ['apply', String(program.pid), join(directory, '1.kpatch'), intents];
  return [process.execPath, ...nodeOptions, driver, ...words];
}

async function answers(): Promise<string[]> {
  program.writeLine('answer');
  const answer = await program.waitForLine(/^answer /);
  program.writeLine('call');
  return [answer, await program.waitForLine(/^call /)];
}

const original = ['answer 42', 'call 11'];
const patched = ['answer 43', 'call 9'];

/** The target answers as before or as patched, and runs without limits patch it and leave no trace (R2, R7). */
async function expectSetRight(why: string): Promise<void> {
  expect([original, patched], why).toContainEqual(await answers());
  const options = { waitMs: 5000, dryRun: false, intentDirectory: intents };
  const report = await apply(program.pid, [released(patch)], options);
  expect(report, why).toMatchObject({ objects: [{ level: 1 }] });
  expect(await answers(), why).toEqual(patched);
  expect((await unload(program.pid, options)).error, why).toBeUndefined();
  expect(await answers(), why).toEqual(original);
  expect(inspect(program.pid), why).toEqual([]);
  expect(countChangedCodeBytes(program.pid, compiled.library), why).toBe(0);
  expect(
    readMappings(program.pid).filter((line) => !mappings.includes(line)),
    why,
  ).toEqual([]);
  expect(readdirSync(intents), why).toEqual([]);
}

describe('a patcher without memory', () => {
  /** True when it did its work. */
  function runs(limits: readonly string[], nodeOptions: readonly string[]): boolean {
    const words = ['--core=0', ...limits, ...patcher(...nodeOptions)];
    const { status, stdout } = spawnSync('prlimit', words, { encoding: 'utf8' });
    return status === 0 && /^(?:applied|unchanged) /.test(stdout);
  }

  /** Halves the way between a limit that is too low and one that is enough: the last ones fail late. */
  async function expectSetRightNear(
    low: number,
    enough: number,
    steps: number,
    run: (limit: number) => boolean,
  ): Promise<void> {
    let [below, above] = [low, enough];
    expect(run(above)).toBe(true);
    await expectSetRight(`limit ${above}`);
    let failures = 0;
    for (let step = 0; step < steps; step++) {
      const limit = Math.floor((below + above) / 2);
      const isDone = run(limit);
      if (!isDone) failures++;
      [below, above] = isDone ? [below, limit] : [limit, above];
      await expectSetRight(`limit ${limit}`);
    }
    expect(failures).toBeGreaterThan(1);
  }

  it('for mappings dies, and the next run sets it right', async () => {
    await expectSetRightNear(256 * mebibyte, 4096 * mebibyte, 14, (limit) => runs([`--as=${limit}`], []));
  });

  it('for its heap dies, and the next run sets it right', async () => {
    await expectSetRightNear(1, 64, 6, (limit) => runs([], [`--max-old-space-size=${limit}`]));
  });

  it('for its stacks dies, and the next run sets it right', async () => {
    await expectSetRightNear(8192, mebibyte, 8, (limit) => runs([`--stack=${limit}`], []));
  });
});

describe('a patcher that is stopped', () => {
  const tasks = (): string[] =>
    readdirSync(`/proc/${program.pid}/task`).map((tid) => `/proc/${program.pid}/task/${tid}/status`);

  const isHeld = (): boolean => tasks().some((file) => !/^TracerPid:\t0$/m.test(readFileSync(file, 'utf8')));

  const isStopped = (pid: number): boolean =>
    /^State:\t[TZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

  /** The patcher goes on for as long as it needs to let all threads go, and then stands still again. */
  async function expectFree(pid: number): Promise<void> {
    await expect.poll(() => !isHeld() && isStopped(pid)).toBe(true);
    expect([original, patched]).toContainEqual(await answers());
    expect(isStopped(pid)).toBe(true);
  }

  /** Starts a patcher and stops it as soon as it traces a thread; true when it still does so then. */
  async function stopInTheMidst(then: 'SIGCONT' | 'SIGKILL', waits: boolean): Promise<boolean> {
    const [file, ...words] = patcher();
    const child = spawn(file, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    const pid = child.pid ?? 0;
    const ended = new Promise<string | null>((resolve) => {
      child.once('exit', (_, signal) => resolve(signal));
    });
    // Without a pause: what is waited for takes less than a millisecond.
    while (!isHeld() && !/^State:\t[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')));
    child.kill('SIGSTOP');
    while (!isStopped(pid));
    const held = isHeld();
    try {
      if (held && waits) await expectFree(pid);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
    child.kill(then);
    const output = await text(child.stdout);
    const signal = await ended;
    if (then === 'SIGCONT') {
      expect({ output, signal }).toEqual({ output: 'applied \n', signal: null });
      expect(await answers()).toEqual(patched);
    }
    return held;
  }

  it.each([
    ['and then gets SIGCONT', 'SIGCONT', false],
    ['and then gets SIGKILL', 'SIGKILL', false],
    ['lets all threads go first; continued, it', 'SIGCONT', true],
    ['lets all threads go first; killed, it', 'SIGKILL', true],
  ] as const)('in the midst of its work %s leaves the target right', async (_, signal, waits) => {
    let held = 0;
    for (let round = 0; round < 20 && held < 4; round++) {
      if (await stopInTheMidst(signal, waits)) held++;
      await expectSetRight(`round ${round}`);
    }
    expect(held).toBeGreaterThan(0);
  });
});
