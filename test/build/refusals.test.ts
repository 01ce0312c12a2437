// What cannot be patched safely is refused with its reason, on small C units compiled on the spot.
import { expect, test } from 'vitest';
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
  const others = { 'box.h': 'struct box_st { int first; int second; };\ntypedef struct box_st BOX;\n' };
  const result = await patchSmallTree({
    before: '#include "box.h"\nint open_box(BOX *box) { box->second = 4; return box->first; }\n',
    after: '#include "box.h"\nint open_box(BOX *box) { return box->first + 1; }\n',
    functions: ['open_box'],
    others,
    changedOthers: { 'box.h': 'struct box_st { int first; };\ntypedef struct box_st BOX;\n' },
  });
  expect(result.codes).toEqual(['CHANGED_TYPE']);
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
