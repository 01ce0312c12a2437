// Functions on the stacks of suspended coroutines: no thread shows them, and they keep a commit waiting all the same.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { handmadePatch, released, returns } from '../../fixtures/support/handmade.js';
import { apply, inspect, unload, type PatchToApply } from '../../src/engine/index.js';
import { mappedObjects } from '../../src/proc/index.js';
import { ask, now, patient, Workshop } from './conditions.js';

let workshop: Workshop;
let file: string;
let patch: PatchToApply;

beforeAll(() => {
  workshop = new Workshop();
  file = workshop.compileOf(
    ['fibers.c'],
    '-pthread',
    '-Wl,--no-as-needed',
    workshop.library,
    `-Wl,-rpath,${workshop.directory}`,
  );
  patch = released(handmadePatch(workshop.library, 1, { call_back: returns(9) }));
});
afterEach(() => workshop.endAll());
afterAll(() => workshop.close());

async function start(...parameters: string[]): Promise<Program> {
  const program = await workshop.run(file, ...parameters);
  await program.waitForLine(/^ready/);
  return program;
}

describe('a function that a coroutine is inside of', () => {
  it.each([
    ['swapcontext', 'suspend'],
    ['setjmp', 'jump'],
  ])('suspended by %s keeps a commit waiting, until it has returned', async (_, command) => {
    const program = await start();
    expect(await ask(program, command, /^suspended/)).toBe('suspended');
    const before = readMappings(program.pid);
    const report = await apply(program.pid, [patch], now);
    expect(report).toMatchObject({ result: 'busy', error: { code: 'TARGET_BUSY' } });
    expect(report.error?.message).toMatch(/suspended context .* is inside call_back/);
    expect(JSON.stringify(report.error?.details['backtrace'])).toMatch(/libanswers\.so\+0x.*fibers\+0x/);
    expect(readMappings(program.pid)).toEqual(before);
    expect(inspect(program.pid)).toEqual([]);
    const waiting = apply(program.pid, [patch], patient);
    setTimeout(() => program.writeLine('resume'), 100);
    expect(await waiting).toMatchObject({ result: 'applied' });
    // The finished coroutine's saved context still names the function; it is over.
    await program.waitForLine(/^resumed/);
    expect(await ask(program, 'call')).toBe('call 9');
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
    expect(await ask(program, 'call')).toBe('call 11');
  });

  it('keeps a commit waiting while its thread stands on another stack', async () => {
    const program = await start();
    await ask(program, 'elsewhere', /^waiting/);
    const report = await apply(program.pid, [patch], now);
    expect(report.error?.message).toMatch(/suspended context .* is inside call_back/);
    await ask(program, 'open', /^returned 11/);
    expect(await apply(program.pid, [patch], patient)).toMatchObject({ result: 'applied' });
  });

  it('does not keep a commit waiting when the coroutine is not inside of it', async () => {
    const program = await start();
    await ask(program, 'outside', /^waiting/);
    expect(await apply(program.pid, [patch], patient)).toMatchObject({ result: 'applied' });
    expect(await ask(program, 'call')).toBe('call 9');
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
    await ask(program, 'open', /^returned 6/);
  });

  it('and that is a paused job of OpenSSL, on a fiber of its own, keeps a commit waiting', async () => {
    const program = await workshop.run(workshop.compileOf(['async.c'], '-Wl,--no-as-needed', '-lcrypto'));
    await program.waitForLine(/^ready/);
    const object = mappedObjects(program.pid).find(({ name }) => name.startsWith('libcrypto.so'));
    if (!object) throw new Error('The program has no libcrypto.');
    const doall = released(handmadePatch(object.path, 1, { OPENSSL_LH_doall: returns(0) }));
    expect(await ask(program, 'run', /^(paused|finished|failed)/)).toBe('paused');
    const report = await apply(program.pid, [doall], now);
    expect(report.error?.message).toMatch(/suspended context .* is inside OPENSSL_LH_doall/);
    expect(await ask(program, 'run', /^(paused|finished|failed)/)).toBe('finished');
    expect(await apply(program.pid, [doall], patient)).toMatchObject({ result: 'applied' });
    expect(await ask(program, 'run', /^(paused|finished|failed)/)).toBe('finished');
    expect((await unload(program.pid, patient)).kept).toBeUndefined();
    expect(await ask(program, 'run', /^(paused|finished|failed)/)).toBe('paused');
  });
});
