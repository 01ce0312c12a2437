// Images that are out of effect: unmapped when nothing can reach them any more, kept and reported until then.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { untilThreadWaits } from '../../fixtures/support/threads.js';
import {
  compileTarget,
  handmadePatch,
  released,
  returns,
  type NewCode,
} from '../../fixtures/support/handmade.js';
import { largestSearch } from '../../src/engine/contexts.js';
import { apply, inspect, unload, type PatchToApply } from '../../src/engine/index.js';
import { ask, patient, Workshop } from './conditions.js';

let workshop: Workshop;
let library: string;
let file: string;

beforeAll(() => {
  workshop = new Workshop();
  library = workshop.compileLibrary('libwords.so', 'words.c');
  const linked = ['-Wl,--no-as-needed', library, `-Wl,-rpath,${workshop.directory}`];
  file = workshop.compileOf(['keeper.c'], '-pthread', ...linked);
});
afterEach(() => workshop.endAll());
afterAll(() => workshop.close());

async function start(...parameters: string[]): Promise<Program> {
  const program = await workshop.run(file, ...parameters);
  await program.waitForLine(/^ready/);
  return program;
}

/** greeting() returns `word`, choose() a function of the patch that returns 77. */
function words(level: number, word: string): PatchToApply {
  const bytes = Buffer.from(`${word}\0`);
  const patch = handmadePatch(
    library,
    level,
    {
      // lea word(%rip),%rax; ret
      greeting: {
        code: '488d0500000000c3',
        relocations: [{ offset: 3, type: 2, symbol: 'word', addend: -4 }],
      },
      // lea 1f(%rip),%rax; ret; 1: mov $77,%eax; ret
      choose: { code: '488d0501000000c3b84d000000c3' },
    },
    {
      sections: [{ name: '.rodata', bytes, size: bytes.length, alignment: 1 }],
      symbols: [
        { name: 'word', where: 'patch', section: '.rodata', value: 0, size: bytes.length, isFunction: false },
      ],
    },
  );
  return released(patch);
}

/** A new thread has mapped a stack for itself meanwhile. */
function expectNoCodeBeside(before: readonly string[], program: Program): void {
  const added = readMappings(program.pid).filter((line) => !before.includes(line));
  expect(added.filter((line) => / r.x/.test(line))).toEqual([]);
}

describe('a patch whose address the program keeps', () => {
  it.each([
    ['a variable', 'global', 'patched'],
    ['the heap', 'heap', 'patched'],
    ['shared memory', 'shared', 'patched'],
    ['a packed structure', 'unaligned', 'patched'],
    ['a stored callback', 'function', '77'],
  ])('in %s stays mapped after its unload, until the program forgets it', async (_, where, answer) => {
    const program = await start();
    const before = readMappings(program.pid);
    await apply(program.pid, [words(1, 'patched')], patient);
    await ask(program, `keep ${where}`, /^kept/);
    const report = await unload(program.pid, patient);
    expect(report).toMatchObject({ result: 'unloaded', objects: [], kept: [{ size: 4096 }] });
    expect(report.kept?.[0]?.reason).toMatch(/may still use the patch: the memory at 0x/);
    expect(inspect(program.pid)).toMatchObject([{ state: 'removing' }]);
    expect(await ask(program, 'greet')).toBe('greet original');
    expect(await ask(program, 'use')).toBe(`use ${answer}`);
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unchanged', kept: [{ size: 4096 }] });
    expect(await ask(program, 'use')).toBe(`use ${answer}`);
    await ask(program, 'forget', /^forgotten/);
    const last = await unload(program.pid, patient);
    expect(last).toMatchObject({ result: 'unloaded' });
    expect(last.kept).toBeUndefined();
    expect(readMappings(program.pid)).toEqual(before);
  });

  it('does not keep it by knowing where the mapping before it ends', async () => {
    const program = await start();
    const before = readMappings(program.pid);
    await apply(program.pid, [words(1, 'patched')], patient);
    const [image] = inspect(program.pid);
    await ask(program, `edge ${image?.address.toString(16) ?? ''}`, /^edge/);
    const report = await unload(program.pid, patient);
    expect(report).toMatchObject({ result: 'unloaded' });
    expect(report.kept).toBeUndefined();
    expect(readMappings(program.pid)).toEqual(before);
  });

  it('is not put where the program remembers something of its own that is gone', async () => {
    const program = await start();
    const before = readMappings(program.pid);
    await apply(program.pid, [words(1, 'patched')], patient);
    const [first] = inspect(program.pid);
    await unload(program.pid, patient);
    await ask(program, `edge ${((first?.address ?? 0n) + 0xff0n).toString(16)}`, /^edge/);
    await apply(program.pid, [words(1, 'patched')], patient);
    expect(inspect(program.pid)).toMatchObject([{ state: 'active' }]);
    expect(inspect(program.pid)[0]?.address).not.toBe(first?.address);
    const report = await unload(program.pid, patient);
    expect({ result: report.result, kept: report.kept }).toEqual({ result: 'unloaded' });
    expect(readMappings(program.pid)).toEqual(before);
  });

  it('in a register only stays mapped after its unload, until the program forgets it', async () => {
    const program = await start();
    const before = readMappings(program.pid);
    await apply(program.pid, [words(1, 'patched')], patient);
    await ask(program, 'keep register', /^kept/);
    const report = await unload(program.pid, patient);
    expect(report).toMatchObject({ result: 'unloaded', kept: [{ size: 4096 }] });
    expect(report.kept?.[0]?.reason).toMatch(/a register of thread \d+ points to 0x/);
    program.writeLine('forget');
    await program.waitForLine(/^register patched/);
    expect((await unload(program.pid, patient)).kept).toBeUndefined();
    expectNoCodeBeside(before, program);
  });

  it('to be called at the end, mangled by the C library, stays mapped until that call', async () => {
    const program = await start();
    await apply(program.pid, [words(1, 'patched')], patient);
    await ask(program, 'keep exit', /^kept/);
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded', kept: [{ size: 4096 }] });
    expect(await ask(program, 'end', /^over/)).toBe('over');
  });

  it('stays mapped through an upgrade, and a later update removes it', async () => {
    const program = await start();
    const [first, second] = [words(1, 'patched'), words(2, 'better')];
    await apply(program.pid, [first], patient);
    await ask(program, 'keep heap', /^kept/);
    expect(await apply(program.pid, [second], patient)).toMatchObject({
      result: 'upgraded',
      objects: [{ level: 2 }],
      kept: [{ size: 4096 }],
    });
    expect([await ask(program, 'use'), await ask(program, 'greet')]).toEqual(['use patched', 'greet better']);
    expect(await apply(program.pid, [second], patient)).toMatchObject({
      result: 'unchanged',
      kept: [{ size: 4096 }],
    });
    await ask(program, 'forget', /^forgotten/);
    const report = await apply(program.pid, [second], patient);
    expect({ result: report.result, kept: report.kept }).toEqual({ result: 'unchanged' });
    expect(inspect(program.pid)).toMatchObject([{ state: 'active', level: 2 }]);
    expect(await ask(program, 'greet')).toBe('greet better');
  });
});

describe('a process that has written more memory than is searched in one stop', () => {
  const size = String(largestSearch + 4 * 1024 * 1024);

  it('keeps the image of a patch that hands out addresses of its own, and says so', async () => {
    const program = await start(size);
    await apply(program.pid, [words(1, 'patched')], patient);
    const report = await unload(program.pid, patient);
    expect(report).toMatchObject({ result: 'unloaded', kept: [{ size: 4096 }] });
    expect(report.kept?.[0]?.reason).toMatch(/too much to be searched/);
    expect(await ask(program, 'greet')).toBe('greet original');
  });

  it('loses the image of a patch that keeps its addresses to itself', async () => {
    const program = await start(size);
    const before = readMappings(program.pid);
    const patch = released(handmadePatch(library, 1, { choose: returns(0) }));
    await apply(program.pid, [patch], patient);
    expect((await unload(program.pid, patient)).kept).toBeUndefined();
    expect(readMappings(program.pid)).toEqual(before);
  });
});

describe('a thread that blocks in the new function', () => {
  // Reads one byte from the descriptor in %edi, and returns 7.
  const waiting: NewCode = { code: '4883ec18488d74240fba0100000031c00f05b8070000004883c418c3' };

  it('keeps an unload waiting, and the image mapped, until it has left', async () => {
    const { library: answers, program: file } = compileTarget(workshop.directory);
    const program = await workshop.run(file, '1');
    await program.waitForLine(/^ready/);
    const before = readMappings(program.pid);
    await apply(program.pid, [released(handmadePatch(answers, 1, { wait_inside: waiting }))], patient);
    program.writeLine('block');
    await untilThreadWaits(program.pid);
    const patched = readMappings(program.pid);
    const report = await unload(program.pid, { waitMs: 500, dryRun: false });
    expect(report.error?.message).toMatch(/thread \d+ is inside patch of libanswers\.so at level 1/);
    expect(report.wallMs).toBeGreaterThan(200);
    expect(inspect(program.pid)).toMatchObject([{ state: 'active' }]);
    expect(readMappings(program.pid)).toEqual(patched);
    program.writeLine('open');
    expect(await program.waitForLine(/^inside/)).toBe('inside 7');
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
    expect(inspect(program.pid)).toEqual([]);
    expectNoCodeBeside(before, program);
  });
});
