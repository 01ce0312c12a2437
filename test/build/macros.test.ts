// Macros that a fix takes along, and those under which its functions would mean something else.
import { describe, expect, test } from 'vitest';
import { patchSmallTree } from './small-tree.js';

const others = { 'other.c': 'int work(int v) { return v * 7 + 1; }\n' };
const head = 'extern int work(int);\n';
const replaced = (result: Awaited<ReturnType<typeof patchSmallTree>>): string[] =>
  (result.patch?.hunks ?? []).map(({ name }) => name);

describe('a macro that the fix takes along', () => {
  test('comes from a header of the fixed version when the running one does not know it', async () => {
    const header = 'int work(int);\n';
    const tree = {
      before: '#include "limits_of_us.h"\nint one(int v) { return work(v) * 31 + v; }\n',
      after: '#include "limits_of_us.h"\nint one(int v) { return v > MOST ? 0 : work(v) * 31 + v; }\n',
      functions: ['one'],
      others: { ...others, 'limits_of_us.h': header },
      changedOthers: { 'limits_of_us.h': `${header}#define MOST 1234\n` },
    };
    expect((await patchSmallTree(tree)).codes).toEqual(['DOES_NOT_COMPILE']);
    const result = await patchSmallTree({ ...tree, macros: ['MOST'] });
    expect(result.refusals).toEqual([]);
    expect(replaced(result)).toEqual(['one']);
  });

  test('is replaced in its place, and changes the functions that use it', async () => {
    const text = (step: number): string =>
      `${head}#define STEP(v) \\\n  (work(v) + ${step})\nint one(int v) { return STEP(v); }\n` +
      'int two(int v) { return STEP(v) * 3; }\nint three(int v) { return work(v) + __LINE__; }\n';
    const result = await patchSmallTree({
      before: text(1),
      after: text(2).replace('(work', '\\\n  \\\n  (work'),
      functions: [],
      macros: ['STEP'],
      others,
    });
    expect(result.refusals).toEqual([]);
    expect(replaced(result).sort()).toEqual(['one', 'two']);
  });

  test('is refused when it is not there', async () => {
    const text = `${head}int one(int v) { return work(v) * 31 + v; }\n`;
    const result = await patchSmallTree({
      before: text,
      after: text,
      functions: [],
      macros: ['NONE'],
      others,
    });
    expect(result.codes).toEqual(['SOURCE_FUNCTION']);
  });
});

describe('a macro that differs between the versions', () => {
  const text = (limit: number, result: number): string =>
    `${head}#define LIMIT ${limit}\n#define MOST (LIMIT + 1)\n` +
    `int one(int v) { return v > MOST ? ${result} : work(v) * 31 + v; }\nint two(int v) { return work(v) - ${result}; }\n`;

  test('refuses a fix that uses it, if only through another one', async () => {
    const tree = { before: text(5, 1), after: text(6, 2), others };
    expect((await patchSmallTree({ ...tree, functions: ['one'] })).codes).toEqual(['CHANGED_MACRO']);
    expect((await patchSmallTree({ ...tree, functions: ['two'] })).codes).toEqual([]);
  });

  test('is no reason against a fix when only its spelling differs', async () => {
    const after = text(5, 2).replace('(LIMIT + 1)', '(LIMIT /* at most */ + \\\n  1)');
    expect((await patchSmallTree({ before: text(5, 1), after, functions: ['one'], others })).codes).toEqual(
      [],
    );
  });

  test('refuses a fix whose function it stands for', async () => {
    const table = 'int (*const table[])(int) = { one, other };\n';
    const before = `${head}#define other one\nint one(int v) { return work(v) * 31 + v; }\n${table}`;
    const after = `${head}int one(int v) { return work(v) * 29 + v; }\nint other(int v) { return work(v) * 31 + v; }\n${table}`;
    const result = await patchSmallTree({ before, after, functions: ['one'], others });
    expect(result.codes).toEqual(['CHANGED_MACRO']);
  });
});
