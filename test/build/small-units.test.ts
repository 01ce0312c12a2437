// What the builder patches, refuses, or finds unchanged, on small C units that gcc compiles and links on the spot.
import { describe, expect, test } from 'vitest';
import { readPatch, writePatch } from '../../src/patchfile/index.js';
import { patchSmallTree } from './small-tree.js';

const replaced = (result: Awaited<ReturnType<typeof patchSmallTree>>): string[] =>
  (result.patch?.hunks ?? []).filter(({ kind }) => kind === 'replace').map(({ name }) => name);

/** A unit with lines that depend on __LINE__ and __FILE__ behind the fixed function. */
const unit = (body: string, head = ''): string => `${head}
extern void report(const char *file, int line, const char *function);
static int calls;
static const char *const names[] = { "one", "two", "three" };
static __attribute__((noinline)) int helper(int value) { calls += value; return calls * 3; }
const char *name_of(unsigned index) { return names[index % 3]; }
int fixed_function(int value)
{
${body}
}
int other_function(int value)
{
    if (value < 0) report(__FILE__, __LINE__, __func__);
    return helper(value) - 1;
}
`;
const others = {
  'report.c': 'void report(const char *f, int l, const char *n) { (void)f; (void)l; (void)n; }\n',
};

describe('building a patch from one changed unit', () => {
  test('only the fixed function is replaced, although lines move and others use __LINE__', async () => {
    const result = await patchSmallTree({
      before: unit('    return helper(value) + value;'),
      after: unit('    if (value > 100)\n        return -1;\n\n    return helper(value) + value;'),
      functions: ['fixed_function'],
      others,
    });
    expect(result.refusals).toEqual([]);
    expect(replaced(result)).toEqual(['fixed_function']);
    const helper = result.patch?.symbols.find(({ name }) => name === 'helper');
    expect(helper?.where).toBe('object');
  });

  test('a change of comments and white space is no change', async () => {
    const result = await patchSmallTree({
      before: unit('    return helper(value) + value;'),
      after: unit('    /* better\n       explained */\n    return helper( value ) + value;'),
      functions: ['fixed_function'],
      others,
    });
    expect(result.outcome).toBe('unchanged');
  });

  test('a change that compiles to the same code is no change', async () => {
    const result = await patchSmallTree({
      before: unit('    return helper(value) + 2;'),
      after: unit('    return helper(value) + 1 + 1;'),
      functions: ['fixed_function'],
      others,
    });
    expect(result.outcome).toBe('unchanged');
  });

  test('a structure whose changed fields a comment names is no reason against a fix', async () => {
    const body = (limit: number): string => `/* the second box */ return helper(value) + ${limit};`;
    const head = '#include "box.h"\n';
    const result = await patchSmallTree({
      before: unit(body(1), head),
      after: unit(body(2), head),
      functions: ['fixed_function'],
      others: { ...others, 'box.h': 'struct pair { int first; int second; };\n' },
      changedOthers: { 'box.h': 'struct pair { int first; int third; };\n' },
    });
    expect(result.refusals).toEqual([]);
  });

  test('a static function that was inlined is patched in its caller', async () => {
    const text = (limit: number): string =>
      `static int limit(int value) { return value > ${limit} ? ${limit} : value; }\n` +
      'int first(int value) { return limit(value) * 2 + 1; }\nint second(int value) { return value * 5 + 7; }\n';
    const result = await patchSmallTree({ before: text(10), after: text(20), functions: ['limit'] });
    expect(replaced(result)).toEqual(['first']);
  });

  test('static data are found through the operands of shipped code', async () => {
    const text = (step: number): string =>
      'static int counter = 5;\nstatic int untouched[4];\n' +
      `int count(int value) { counter += value * ${step}; untouched[value & 3]++; return counter; }\n` +
      'int peek(void) { return counter + untouched[1]; }\n';
    const result = await patchSmallTree({ before: text(1), after: text(3), functions: ['count'] });
    const data = result.patch?.symbols.filter(({ name }) => ['counter', 'untouched'].includes(name));
    expect(data?.map(({ where }) => where)).toEqual(['object', 'object']);
    expect(
      result.patch?.metadata.proof.some(({ symbol, how }) => symbol === 'counter' && how === 'operand'),
    ).toBe(true);
    const counter = data?.find(({ name }) => name === 'counter');
    if (counter?.where !== 'object') throw new Error('counter is not in the object');
    expect(result.shipped.int32At(counter.value)).toBe(5);
  });

  test('a function with an unlikely part brings its new part along and guards the old one', async () => {
    const text = (limit: number): string =>
      '#include <stdlib.h>\nextern int work(int);\n' +
      'int checked(int value, int *p) { if (!p) { work(1); work(2); abort(); }\n' +
      `for (int i = 0; i < value; i++) { if (p[i] == ${limit}) abort(); p[i] = work(p[i]); } return work(value) + 1; }\n`;
    const result = await patchSmallTree({
      before: text(42),
      after: text(43),
      functions: ['checked'],
      others: { 'work.c': 'int work(int v) { return v; }\n' },
    });
    expect(result.refusals).toEqual([]);
    expect(result.patch?.hunks.map(({ kind, name }) => `${kind} ${name}`).sort()).toEqual([
      'guard checked.cold',
      'replace checked',
    ]);
    expect(
      result.patch?.symbols.some(({ name, where }) => name === 'checked.cold' && where === 'patch'),
    ).toBe(true);
  });

  test('a new switch table is carried in the patch', async () => {
    const cases = (count: number): string =>
      Array.from({ length: count }, (_, index) => `case ${index}: return step(${(index * 37) % 11});`).join(
        '\n',
      );
    const text = (count: number): string =>
      `extern int step(int);\nint choose(int value) { switch (value) {\n${cases(count)}\ndefault: return step(99); } }\n`;
    const result = await patchSmallTree({
      before: text(8),
      after: text(12),
      functions: ['choose'],
      others: { 'step.c': 'int step(int v) { return v + 1; }\n' },
      extraFlags: ['-fno-tree-switch-conversion'],
    });
    expect(replaced(result)).toEqual(['choose']);
    expect(result.patch?.relocations.some(({ section }) => section === '.rodata')).toBe(true);
  });

  test('a symbol that the old unit never used is found in the unit that defines it', async () => {
    const result = await patchSmallTree({
      before: '#include "checks.h"\nint entry(int value) { return value * 17 + 4; }\n',
      after:
        '#include "checks.h"\nint entry(int value) { return hidden_check(value) ? -1 : value * 17 + 4; }\n',
      functions: ['entry'],
      others: {
        'checks.h': 'int hidden_check(int) __attribute__((visibility("hidden")));\n',
        'hidden.c':
          '#include "checks.h"\nint hidden_check(int value) { return value > 100 && value % 7 == 3; }\n' +
          'int use(int value) { return hidden_check(value) * 3; }\n',
      },
    });
    expect(replaced(result)).toEqual(['entry']);
    const check = result.patch?.symbols.find(({ name }) => name === 'hidden_check');
    expect(check?.where).toBe('object');
    expect(result.patch?.metadata.proof.find(({ symbol }) => symbol === 'hidden_check')?.how).toBe(
      'object-bytes',
    );
  });

  test('a new function of the C library, which the object did not import, is left to run time', async () => {
    const head = '#include <stdlib.h>\n#include <string.h>\n';
    const result = await patchSmallTree({
      before: `${head}size_t entry(const char *text) { return *text * 17 + 4; }\n`,
      after: `${head}size_t entry(const char *text) { return strcspn(text, "abc") + strlen(text); }\n`,
      functions: ['entry'],
    });
    expect(result.refusals).toEqual([]);
    expect(result.patch?.symbols.filter(({ where }) => where === 'foreign').map(({ name }) => name)).toEqual([
      'strcspn',
      'strlen',
    ]);
    expect(result.patch?.sections.find(({ name }) => name === '.kcare.got')?.size).toBe(16);
  });

  test('the file is the same when it is built again', async () => {
    const tree = {
      before: unit('    return helper(value) + value;'),
      after: unit('    return helper(value) ? value : 12345;'),
      functions: ['fixed_function'],
      others,
    };
    const [first, second] = [await patchSmallTree(tree), await patchSmallTree(tree)];
    if (!first.patch || !second.patch) throw new Error('no patch');
    const bytes = writePatch(first.patch);
    expect(Buffer.compare(bytes, writePatch(second.patch))).toBe(0);
    expect(Buffer.compare(writePatch(readPatch(bytes)), bytes)).toBe(0);
    expect(Buffer.from(bytes).includes(first.directory)).toBe(false);
  });
});
