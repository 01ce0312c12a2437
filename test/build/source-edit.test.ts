// Functions move from one version's source to the other's; every other line keeps its number.
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { bracesClose, parseSource, tokensOf } from '../../src/build/c-source.js';
import { Refusals } from '../../src/build/result.js';
import { replaceFunctions, replaceInclude } from '../../src/build/source-edit.js';

async function edit(
  before: string,
  after: string,
  functions: string[],
  adds: string[] = [],
  macros: string[] = [],
) {
  const refusals = new Refusals();
  const text = await replaceFunctions(
    before,
    after,
    { file: 'a.c', functions, adds, macros },
    '../x/a.c',
    refusals,
  );
  return { text, codes: refusals.all.map(({ code }) => code) };
}

const preprocess = (text: string): string =>
  execFileSync('gcc', ['-E', '-P', '-x', 'c', '-'], { input: text, encoding: 'utf8' });

test('lines and file names outside of the replaced functions stay what they were', async () => {
  const mark = (name: string): string => `const char *${name}_at = __FILE__; int ${name}_line = __LINE__;\n`;
  const before = `${mark('first')}int one(void)\n{\n    return 1;\n}\n${mark('middle')}int two(void) { return 2; }\n${mark('last')}`;
  const after = 'int two(void)\n{\n    int a = 3;\n    return a;\n}\nint one(void) { return 11; }\n';
  const { text = '' } = await edit(before, after, ['one', 'two']);
  const [old, fresh] = [preprocess(`#line 1 "../x/a.c"\n${before}`), preprocess(text)];
  const marks = (source: string): string[] =>
    source.match(/(?:first|middle|last)_(?:at|line) = [^;]*/g) ?? [];
  expect(marks(fresh)).toEqual(marks(old));
  expect(marks(fresh)).toHaveLength(6);
  expect(fresh).toContain('return 11;');
  expect(fresh).toContain('int a = 3;');
});

test('an included source file is edited in its place, and lines around it stay what they were', () => {
  const main = 'int first;\n# include <sysdeps/x/part.c> /* code */\nint last = __LINE__;\n';
  const text = replaceInclude(main, 'main.c', 'lib/sysdeps/x/part.c', '#line 1 "x/part.c"\nint edited;\n');
  expect(preprocess(text ?? '')).toMatch(/^int first;\nint edited;\nint last = 3;\n$/);
  expect(replaceInclude(main, 'main.c', 'lib/other.c', '')).toBeUndefined();
  expect(replaceInclude(main, 'main.c', 'lib/art.c', '')).toBeUndefined();
});

test('functions that only the fixed version has come before their first use', async () => {
  const { text = '' } = await edit(
    'int one(int a) { return a; }\n',
    'static int added(int a) { return a + 1; }\nint one(int a) { return added(a); }\n',
    ['one'],
    ['added'],
  );
  expect(text.indexOf('static int added')).toBeLessThan(text.indexOf('return added(a)'));
});

test('macros that hide keywords and braces in the style of OpenSSL do not disturb', async () => {
  const text =
    'IMPLEMENT_THING(x, y)\nvoid *load(const char *a,\n           int b)\n{\n    TRACE_BEGIN(X) {\n        print("}{");\n    } TRACE_END(X);\n' +
    '    return 0;\n}\nstatic int other(void) { return 1; }\n';
  const { functions } = await parseSource(text);
  const load = functions.find(({ name }) => name === 'load');
  if (!load) throw new Error('load was not found');
  expect(bracesClose(text, load.body, load.end)).toBe(true);
  expect(text.slice(load.start, load.end)).toMatch(/^void \*load[\s\S]*return 0;\n\}$/);
});

test('a function that is missing, or defined another number of times, is refused', async () => {
  const one = 'int one(void) { return 1; }\n';
  expect((await edit(one, one, ['two'])).codes).toEqual(['SOURCE_FUNCTION', 'SOURCE_FUNCTION']);
  const twice = `#ifdef A\n${one}#else\n${one}#endif\n`;
  expect((await edit(twice, one, ['one'])).codes).toEqual(['SOURCE_FUNCTION']);
});

test('of definitions under preprocessor conditionals, each gets its own successor', async () => {
  const text = (a: number, b: number): string =>
    `#ifdef A\nint one(void) { return ${a}; }\n#else\nint one(void) { return ${b}; }\n#endif\n`;
  const { text: edited = '' } = await edit(text(1, 2), text(1, 20), ['one']);
  expect(preprocess(edited)).toContain('return 20;');
  expect(preprocess(`#define A\n${edited}`)).toContain('return 1;');
});

test('tokens ignore comments and space, but not strings', () => {
  expect(tokensOf('a /* b */ = "c /* d */"; // e')).toEqual(['a', '=', '"c /* d */"', ';']);
  expect(tokensOf("x='\\'';y")).toEqual(['x', '=', "'\\''", ';', 'y']);
});
