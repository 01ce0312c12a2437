// Functions that are entered, or left, by a jump: no return address names the function that jumped.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { handmadePatch, released, returns } from '../../fixtures/support/handmade.js';
import type { Program } from '../../fixtures/support/program.js';
import { apply, unload, type PatchToApply } from '../../src/engine/index.js';
import { now, patient, Workshop } from './conditions.js';

let workshop: Workshop;
let library: string;
let file: string;

beforeAll(() => {
  workshop = new Workshop();
  library = workshop.compileLibrary('libtails.so', 'tails.c');
  const linked = ['-Wl,--no-as-needed', library, `-Wl,-rpath,${workshop.directory}`];
  file = workshop.compileOf(['tailer.c'], '-pthread', ...linked);
});
afterEach(() => workshop.endAll());
afterAll(() => workshop.close());

const replacing = (name: string): PatchToApply => released(handmadePatch(library, 1, { [name]: returns(7) }));

/** The thread waits behind the jump. */
async function start(): Promise<Program> {
  const program = await workshop.run(file);
  await program.waitForLine(/^ready/);
  const isInside = async (): Promise<boolean> => {
    const { result } = await apply(program.pid, [replacing('wait_at_end')], now);
    if (result === 'applied') await unload(program.pid, patient);
    return result === 'busy';
  };
  await expect.poll(isInside, { timeout: 10_000 }).toBe(true);
  return program;
}

describe('a thread that waits behind a tail call', () => {
  it('is inside the function that was jumped into, which waits to be patched', async () => {
    const program = await start();
    const report = await apply(program.pid, [replacing('wait_at_end')], now);
    expect(report.error?.details).toMatchObject({ function: 'wait_at_end' });
    const waiting = apply(program.pid, [replacing('wait_at_end')], patient);
    setTimeout(() => program.writeLine('open'), 100);
    expect(await waiting).toMatchObject({ result: 'applied' });
    expect(await program.waitForLine(/^left/)).toBe('left 1');
  });

  it('is no longer inside the function that jumped, which is patched at once', async () => {
    const program = await start();
    expect(await apply(program.pid, [replacing('leave_by_jump')], now)).toMatchObject({ result: 'applied' });
    program.writeLine('open');
    expect(await program.waitForLine(/^left/)).toBe('left 1');
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
  });
});
