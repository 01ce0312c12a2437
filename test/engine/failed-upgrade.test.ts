// A failed upgrade, for whatever reason, leaves the level that was there, whole and active, and the report says both.
import { execFileSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { handmadePatch, released, returns } from '../../fixtures/support/handmade.js';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { apply, inspect, unload, type PatchToApply, type TargetResult } from '../../src/engine/index.js';
import type { Patch } from '../../src/patchfile/index.js';
import { answers, ask, now, patient, untilItReads, Workshop } from './conditions.js';

describe('an upgrade that fails', () => {
  let workshop: Workshop;

  beforeAll(() => {
    workshop = new Workshop();
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  const level2 = (...[extras]: [Parameters<typeof handmadePatch>[3]?]): Patch =>
    handmadePatch(workshop.library, 2, { answer: returns(44), call_back: returns(9) }, extras);

  async function startAtLevel1(): Promise<Program> {
    const program = await workshop.start('plain');
    const level1 = answers(workshop.library, 1, 43);
    expect(await apply(program.pid, [level1], patient)).toMatchObject({ result: 'applied' });
    expect(await ask(program, 'answer')).toBe('answer 43');
    return program;
  }

  async function expectLevel1Kept(
    program: Program,
    patch: PatchToApply,
    expected: { result: TargetResult; code: string; message: RegExp },
    options = patient,
  ): Promise<void> {
    const { pid } = program;
    const before = { mappings: readMappings(pid), changed: countChangedCodeBytes(pid, workshop.library) };
    const report = await apply(pid, [patch], options);
    expect({ result: report.result, code: report.error?.code }).toEqual({
      result: expected.result,
      code: expected.code,
    });
    expect(report.error?.message).toMatch(expected.message);
    expect(report.objects).toMatchObject([{ objectName: 'libanswers.so', level: 1 }]);
    expect(inspect(pid)).toMatchObject([{ state: 'active', level: 1 }]);
    expect(await ask(program, 'answer')).toBe('answer 43');
    const after = { mappings: readMappings(pid), changed: countChangedCodeBytes(pid, workshop.library) };
    expect(after).toEqual(before);
  }

  /** Level 1 can still be removed, and a sound level 2 applied. */
  async function expectUsable(program: Program): Promise<void> {
    expect(await apply(program.pid, [answers(workshop.library, 2, 44)], patient)).toMatchObject({
      result: 'upgraded',
    });
    expect(await ask(program, 'answer')).toBe('answer 44');
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded', objects: [] });
    expect(await ask(program, 'answer')).toBe('answer 42');
    expect(countChangedCodeBytes(program.pid, workshop.library)).toBe(0);
  }

  it('because of other bytes than expected leaves level 1 active', async () => {
    const program = await startAtLevel1();
    const patch = level2();
    const hunks = patch.hunks.map((hunk) =>
      hunk.name === 'answer' ? hunk : { ...hunk, original: Buffer.from(hunk.original).reverse() },
    );
    await expectLevel1Kept(program, released({ ...patch, hunks }), {
      result: 'refused',
      code: 'BYTES_MISMATCH',
      message: /call_back in libanswers\.so/,
    });
    await expectUsable(program);
  });

  it('because of a missing symbol leaves level 1 active', async () => {
    const program = await startAtLevel1();
    const patch = level2({
      sections: [{ name: '.kcare.got', bytes: new Uint8Array(8), size: 8, alignment: 8 }],
      symbols: [{ name: 'nobody_has_this', where: 'foreign', version: '' }],
      relocations: [{ section: '.kcare.got', offset: 0, type: 1, symbol: 0, addend: 0 }],
    });
    await expectLevel1Kept(program, released(patch), {
      result: 'refused',
      code: 'SYMBOL_UNRESOLVED',
      message: /nobody_has_this/,
    });
    await expectUsable(program);
  });

  it('because its image cannot be mapped leaves level 1 active', async () => {
    const program = await startAtLevel1();
    const limit = (bytes: string): void => {
      execFileSync('prlimit', ['--pid', String(program.pid), `--as=${bytes}`]);
    };
    limit('4096:unlimited');
    await expectLevel1Kept(program, released(level2()), {
      result: 'failed',
      code: 'TARGET_MEMORY',
      message: /could not map the image \(ENOMEM\)/,
    });
    limit('unlimited:unlimited');
    await expectUsable(program);
  });

  it('because a thread is inside a function that it adds leaves level 1 active', async () => {
    const program = await startAtLevel1();
    program.writeLine('recurse');
    await untilItReads(program.pid, 2);
    await expectLevel1Kept(
      program,
      released(level2()),
      { result: 'busy', code: 'TARGET_BUSY', message: /is inside call_back/ },
      now,
    );
    program.writeLine('open');
    await program.waitForLine(/^recursion /);
    await expectUsable(program);
  });
});
