// What cannot be patched safely is refused with its reason, on small C units compiled on the spot.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { CodeObject } from '../../src/build/code-object.js';
import { compareUnit } from '../../src/build/compare-unit.js';
import { parseInlining } from '../../src/build/compile.js';
import { Refusals } from '../../src/build/result.js';
import { patchSmallTree } from './small-tree.js';

test('a changed initial value of static data is refused', async () => {
  const text = (limit: number, step: number): string =>
    `int next(int value)\n{\n    static int limit = ${limit};\n    limit += ${step};\n    return value + limit;\n}\n`;
  const result = await patchSmallTree({ before: text(5, 1), after: text(6, 2), functions: ['next'] });
  expect(result.codes).toEqual(['CHANGED_DATA']);
});

test('changed parameters are refused', async () => {
  const result = await patchSmallTree({
    before: 'int sum(int left, int right) { return left + right; }\n',
    after: 'int sum(long left, int right) { return left + right; }\n',
    functions: ['sum'],
  });
  expect(result.codes).toEqual(['CHANGED_SIGNATURE']);
});

test('a structure that lost a field is refused', async () => {
  const close = 'int close_box(BOX *box) { return box->second; }\n';
  const others = { 'box.h': 'struct box_st { int first; int second; };\ntypedef struct box_st BOX;\n' };
  const result = await patchSmallTree({
    before: `#include "box.h"\nint open_box(BOX *box) { box->second = 4; return box->first; }\n${close}`,
    after: `#include "box.h"\nint open_box(BOX *box) { return box->first + 1; }\n`,
    functions: ['open_box'],
    others,
    changedOthers: { 'box.h': 'struct box_st { int first; };\ntypedef struct box_st BOX;\n' },
  });
  expect(result.refusals).toEqual([
    {
      code: 'CHANGED_TYPE',
      function: 'open_box',
      message:
        'struct box_st changes in the fixed version (8 bytes become 4, field second is gone), and open_box uses it; unchanged code of the file uses it, too: close_box',
    },
  ]);
});

test('a structure that changes where the fixed function does not look is no obstacle', async () => {
  const code = (extra: string): string =>
    `#include "box.h"\nvoid more(int);\nint open_box(struct box *box) { for (int i = 0; i < box->first; i++) more(i); return box->first${extra}; }\n`;
  const result = await patchSmallTree({
    before: code(''),
    after: code(' + 1'),
    functions: ['open_box'],
    others: { 'box.h': 'struct box { int first; int second; };\n' },
    changedOthers: { 'box.h': 'struct box { int other; int first; };\n' },
  });
  expect(result.codes).toEqual([]);
});

test('a fix that needs a field which the running version lacks does not compile', async () => {
  const result = await patchSmallTree({
    before: 'struct s { int a; };\nint get(struct s *s) { return s->a; }\n',
    after: 'struct s { int a; int b; };\nint get(struct s *s) { return s->a + s->b; }\n',
    functions: ['get'],
  });
  expect(result.codes).toContain('CHANGED_TYPE');
  expect(result.codes).toContain('DOES_NOT_COMPILE');
});

test('a function shorter than the jump is refused', async () => {
  const result = await patchSmallTree({
    before: 'int more(int);\nvoid nothing(void) { }\nint more(int a) { return a * 31 + 7; }\n',
    after:
      'int more(int);\nvoid nothing(void) { more(1); more(2); }\nint more(int a) { return a * 31 + 7; }\n',
    functions: ['nothing'],
    extraFlags: ['-fno-inline', '-fno-ipa-pure-const'],
  });
  expect(result.codes).toEqual(['TOO_SHORT']);
});

test('a jump across a page boundary is refused', async () => {
  const text = (step: number, offset: number): string =>
    `__asm__(".text\\n.balign 4096\\n.skip ${offset}, 0xcc\\n");\n` +
    `int more(int value) { while (value < 1000) value = value * 3 + ${step}; return value; }\n`;
  const extraFlags = ['-fno-toplevel-reorder', '-falign-functions=1', '-fcf-protection=none'];
  const make = (offset: number): ReturnType<typeof patchSmallTree> =>
    patchSmallTree({ before: text(1, offset), after: text(2, offset), functions: ['more'], extraFlags });
  expect((await make(4091)).codes).toEqual([]);
  expect((await make(4092)).codes).toEqual(['JUMP_CROSSES_PAGE']);
});

test('code that occurs twice in the object is refused', async () => {
  const text = (step: number): string =>
    `static __attribute__((noinline)) int spin(int v) { while (v < 1000) v = v * 3 + ${step}; return v; }\n` +
    'int NAME(int v) { return spin(v) + spin(v + 1); }\n';
  const result = await patchSmallTree({
    before: text(1).replace('NAME', 'one'),
    after: text(2).replace('NAME', 'one'),
    functions: ['spin'],
    others: { 'copy.c': text(1).replace('NAME', 'two') },
    extraFlags: ['-fvisibility=hidden'],
  });
  expect(result.codes).toEqual(['AMBIGUOUS']);
});

const spin = (step: number): string =>
  `int spin(int v) { while (v < 1000) v = v * 3 + ${step}; return v; }\n`;

test('a library that was compiled otherwise than the recipe says is refused', async () => {
  const result = await patchSmallTree({
    before: spin(1),
    after: spin(2),
    functions: ['spin'],
    unknownFlags: ['-O1'],
  });
  expect(result.codes).toEqual(['NOT_FOUND_IN_OBJECT']);
  expect(result.refusals[0]?.message).toMatch(/^unit\.c, compiled as the distribution does: /);
});

test.each([
  ['that the build does not compile', { others: { 'unused.inc': spin(1) }, file: 'unused.inc' }],
  ['that one of the versions lacks', { file: 'missing.c' }],
])('a source file %s is refused', async (_, place) => {
  const result = await patchSmallTree({ before: spin(1), after: spin(2), functions: ['spin'], ...place });
  expect(result.codes).toEqual(['NO_COMPILE_COMMAND']);
});

test('a unit whose code is made at the link is refused', async () => {
  const result = await patchSmallTree({
    before: spin(1),
    after: spin(2),
    functions: ['spin'],
    extraFlags: ['-flto', '-ffat-lto-objects'],
  });
  expect(result.codes).toEqual(['LINK_TIME_OPTIMIZATION']);
});

test('a function that only the shipped code has inlined elsewhere is refused', () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-inlined-'));
  try {
    const compile = (step: number, flags: readonly string[]): { object: CodeObject; inlined: string[] } => {
      const unit = path.join(directory, 'unit');
      const [source, object, notes] = [`${unit}.c`, `${unit}.o`, `${unit}.notes`] as const;
      fs.writeFileSync(source, `static ${spin(step)}int user(int v) { return spin(v) + 1; }\n`);
      fs.rmSync(notes, { force: true });
      const report = `-fopt-info-inline-optimized=${notes}`;
      execFileSync('gcc', ['-O2', '-fPIC', ...flags, report, '-c', '-o', object, source]);
      const inlined = fs.existsSync(notes) ? parseInlining(fs.readFileSync(notes, 'utf8')) : [];
      return { object: new CodeObject(fs.readFileSync(object)), inlined };
    };
    const sections = ['-ffunction-sections', '-fno-inline'];
    const refusals = new Refusals();
    const stock = compile(1, []);
    expect(stock.inlined).toEqual(['spin user']);
    const nowhere = new Map<never, never>();
    const placement = {
      unit: stock.object,
      sections: nowhere,
      threadSections: nowhere,
      externals: nowhere,
      textAddress: 0,
      isUnique: true,
      operands: { sections: nowhere, externals: nowhere },
    };
    const compiles = {
      placement,
      inlined: stock.inlined,
      original: compile(1, sections),
      patched: compile(2, sections).object,
    };
    compareUnit('unit.c', compiles, ['spin'], refusals);
    expect(refusals.all.map(({ code }) => code)).toEqual(['INLINED_ELSEWHERE']);
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
});

test('all reasons are told at once', async () => {
  const result = await patchSmallTree({
    before: 'int one(int a) { return a; }\nint two(int a) { static int s = 1; return s += a; }\n',
    after: 'int one(long a) { return a; }\nint two(int a) { static int s = 2; return s += a; }\nint three;\n',
    functions: ['one', 'two', 'missing'],
  });
  expect([...new Set(result.codes)].sort()).toEqual(['CHANGED_DATA', 'CHANGED_SIGNATURE', 'SOURCE_FUNCTION']);
});

test('the address of a new function may not be given away', async () => {
  const result = await patchSmallTree({
    before: 'extern void keep(int (*)(int));\nvoid start(int a) { if (a) keep(0); }\n',
    after:
      'extern void keep(int (*)(int));\nstatic int handler(int v) { return v * 2; }\nvoid start(int a) { if (a) keep(handler); }\n',
    functions: ['start'],
    adds: ['handler'],
    others: { 'keep.c': 'int (*kept)(int);\nvoid keep(int (*f)(int)) { kept = f; }\n' },
  });
  expect(result.codes).toEqual(['UNRESOLVED_SYMBOL']);
});

test('a hook of a recipe may not call what takes locks, nor be a function that is there', async () => {
  const unit = (step: number): string =>
    `#include <stdlib.h>\nint *kept;\nint next(int value) { while (value < 1000) value = value * 3 + ${step}; return value; }\n`;
  const make = (update: string): ReturnType<typeof patchSmallTree> =>
    patchSmallTree({ before: unit(1), after: unit(2), functions: ['next'], update });
  const hook = (body: string): string =>
    `#include <kcare-patch.h>\nstatic void hook(void) { ${body} }\nKCARE_UPDATE(hook);\n`;
  expect((await make(hook('kept = malloc(8);'))).codes).toEqual(['HOOK']);
  const made = await make(hook('kept = 0;'));
  expect(made.codes).toEqual([]);
  expect(made.patch?.hooks).toEqual([{ kind: 'update', function: 'hook' }]);
});
