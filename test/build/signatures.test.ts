// Functions whose parameters change: replaced together with their callers, where nothing else can call them.
import { describe, expect, test } from 'vitest';
import { patchSmallTree, type SmallTree } from './small-tree.js';

const kept = '__attribute__((noinline, noclone))';
const other = 'int work(int v) { return v * 7 + 1; }\n';

/** A static function and its callers; `second` changes only where `second` says so. */
const local = (parameters: string, firstCall: string, secondCall: string, more = ''): string =>
  `extern int work(int);\nstatic int scale(${parameters});\n${more}` +
  `int first(int value) { return ${firstCall} + 1; }\n` +
  `int second(int value) { return ${secondCall} + 2; }\n` +
  `static ${kept} int scale(${parameters}) { return work((int)value) + work(3); }\n`;

const replaced = (result: Awaited<ReturnType<typeof patchSmallTree>>): string[] =>
  (result.patch?.hunks ?? []).filter(({ kind }) => kind === 'replace').map(({ name }) => name);

describe('a static function with other parameters', () => {
  const both: SmallTree = {
    before: local('int value', 'scale(value)', 'scale(value + 1)'),
    after: local('int flag, long value', 'scale(0, value)', 'scale(1, value + 1)').replace(
      'return work(',
      'return flag + work(',
    ),
    functions: ['scale', 'first', 'second'],
    others: { 'other.c': other },
  };

  test('is replaced together with its callers', async () => {
    const result = await patchSmallTree(both);
    expect(result.refusals).toEqual([]);
    expect(replaced(result).sort()).toEqual(['first', 'scale', 'second']);
  });

  test('does not compile when a caller is left as it was', async () => {
    const result = await patchSmallTree({ ...both, functions: ['scale', 'first'] });
    expect(result.codes).toEqual(['DOES_NOT_COMPILE']);
  });

  test('brings along callers that the compiler makes other code of, although nobody named them', async () => {
    const result = await patchSmallTree({
      ...both,
      after: local('long value', 'scale(value)', 'scale(value + 1)'),
      functions: ['scale'],
    });
    expect(result.refusals).toEqual([]);
    expect(replaced(result)).toEqual(expect.arrayContaining(['first']));
  });

  test('is refused when data hold its address', async () => {
    const table = 'int (*const table[])(int) = { work, (int (*)(int))scale };\n';
    const result = await patchSmallTree({
      ...both,
      before: both.before + table,
      after: both.after + table,
    });
    expect(result.codes).toEqual(['CHANGED_SIGNATURE']);
  });

  test('is refused when code takes its address', async () => {
    const text = 'void *keep(void) { return (void *)scale; }\n';
    const result = await patchSmallTree({ ...both, before: both.before + text, after: both.after + text });
    expect(result.codes).toEqual(['CHANGED_SIGNATURE']);
  });

  test('is refused when callers may finish in their old code', async () => {
    expect((await patchSmallTree({ ...both, independent: true })).codes).toContain('NOT_INDEPENDENT');
  });
});

describe('a function of other files with other parameters', () => {
  const header = (parameters: string): string =>
    `int work(int);\n__attribute__((visibility("hidden"))) int scale(${parameters});\n`;
  const across: SmallTree = {
    before: '#include "scale.h"\nint scale(int value) { return work(value) + 1; }\n',
    after: '#include "scale.h"\nint scale(int value, int flag) { return work(value) + flag; }\n',
    functions: ['scale'],
    others: {
      'scale.h': header('int value'),
      'other.c': other,
      'caller.c': '#include "scale.h"\nint first(int value) { return scale(value) * 3; }\n',
    },
    changedOthers: {
      'scale.h': header('int value, int flag'),
      'caller.c': '#include "scale.h"\nint first(int value) { return scale(value, 9) * 3; }\n',
    },
    also: [{ file: 'caller.c', functions: ['first'] }],
  };

  test('is replaced together with the callers in other files', async () => {
    const result = await patchSmallTree(across);
    expect(result.refusals).toEqual([]);
    expect(replaced(result).sort()).toEqual(['first', 'scale']);
  });

  test('is refused when a file calls it that the fix does not name', async () => {
    const result = await patchSmallTree({ ...across, also: [] });
    expect(result.codes).toEqual(['CHANGED_SIGNATURE']);
  });

  test('is refused when other objects can call it', async () => {
    const visible = (text: string): string => text.replace('__attribute__((visibility("hidden"))) ', '');
    const result = await patchSmallTree({
      ...across,
      others: { ...across.others, 'scale.h': visible(header('int value')) },
    });
    expect(result.codes).toContain('CHANGED_SIGNATURE');
  });
});
