// Recipes are checked field by field; versions are ordered and chosen as Debian does.
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { parseIndexTarget, signedByOf } from '../../src/build/apt.js';
import { parseCompileCommand, parseCompileCommands, shellWords } from '../../src/build/configure.js';
import { parseRecipe, selectFixes } from '../../src/build/recipe.js';
import { chooseVersions, compareVersions } from '../../src/build/versions.js';
import { random } from '../random.js';
import { smallRecipe } from './small-tree.js';

test('a complete recipe is read, and defaults are filled in', () => {
  const recipe = parseRecipe(smallRecipe(['one']));
  expect(recipe.cves[0]).toMatchObject({ functions: ['one'], adds: [], score: '' });
});

test.each([
  ['no YAML', '{a: ['],
  ['no mapping', '- 1'],
  ['a missing field', smallRecipe(['one']).replace('"level":1,', '')],
  ['an unknown field', smallRecipe(['one']).replace('"level":1', '"level":1,"levle":2')],
  ['a path out of the tree', smallRecipe(['one']).replace('unit.c', '../unit.c')],
  ['an absolute path', smallRecipe(['one']).replace('unit.c', '/unit.c')],
  ['a function that is none', smallRecipe(['one; rm'])],
  ['a version with an option', smallRecipe(['one']).replace('"runs":"1"', '"runs":"-o x"')],
])('%s is a malformed recipe', (_, text) => {
  expect(() => parseRecipe(text)).toThrow(expect.objectContaining({ code: 'RECIPE_MALFORMED' }));
});

test('all wrong fields are named at once', () => {
  const text = smallRecipe([]).replace('"level":1', '"level":0');
  expect(() => parseRecipe(text)).toThrow(/level.*functions/s);
});

test('a fix that the recipe lacks is a wrong use of the command', () => {
  const recipe = parseRecipe(smallRecipe(['one']));
  expect(selectFixes(recipe, ['CVE-2026-1'])).toEqual(recipe);
  expect(() => selectFixes(recipe, ['CVE-1'])).toThrow(expect.objectContaining({ code: 'USAGE' }));
});

test('random text never crashes the parser', () => {
  const next = random(7);
  const text = smallRecipe(['one']);
  for (let round = 0; round < 300; round++) {
    const at = next() % text.length;
    const damaged = text.slice(0, at) + String.fromCharCode(32 + (next() % 95)) + text.slice(at + 1);
    try {
      parseRecipe(damaged);
    } catch (error) {
      expect(error).toMatchObject({ code: 'RECIPE_MALFORMED' });
    }
  }
});

const versions = [
  '1.0~rc1-1',
  '1.0-1',
  '1.0-1~deb12u2',
  '1.0-1+b1',
  '1.0.1-1',
  '1:0.9-1',
  '3.0.17-1~deb12u2',
  '3.0.9-1',
  '1.0a-1',
  '1.0',
];

test('versions are ordered as dpkg orders them', () => {
  for (const left of versions) {
    for (const right of versions) {
      const isOlder = (() => {
        try {
          execFileSync('dpkg', ['--compare-versions', left, 'lt', right]);
          return true;
        } catch {
          return false;
        }
      })();
      expect(compareVersions(left, right) < 0, `${left} lt ${right}`).toBe(isOlder);
    }
  }
});

test('the versions of the recipe are taken while the archive has them', () => {
  const available = { binary: ['1', '2', '3'], source: ['1', '2', '3'] };
  expect(chooseVersions({ runs: '1', fixed: '2' }, available)).toEqual({
    runs: '1',
    fixed: '2',
    substituted: false,
  });
});

test.each([
  ['the nearest older one with source', { binary: ['1', '2', '5'], source: ['1', '5', '6'] }, '1', '6'],
  ['else the nearest newer one', { binary: ['4', '5', '6'], source: ['4', '5', '6'] }, '4', '6'],
])('when the running version is gone, %s stands in', (_, available, runs, fixed) => {
  expect(chooseVersions({ runs: '3', fixed: '3.5' }, available)).toEqual({ runs, fixed, substituted: true });
});

test('one version alone is no pair', () => {
  expect(chooseVersions({ runs: '1', fixed: '2' }, { binary: ['3'], source: ['3'] })).toBeUndefined();
  expect(chooseVersions({ runs: '1', fixed: '2' }, { binary: [], source: [] })).toBeUndefined();
});

test('compile commands keep their quoting and lose their outputs', () => {
  expect(shellWords(`gcc -DA="\\"/usr/lib\\"" 'b c' d\\ e`)).toEqual(['gcc', '-DA="/usr/lib"', 'b c', 'd e']);
  expect(parseCompileCommand('gcc  -I. -O2 -MMD -MF a.d.tmp -MT a.o -c -o a.o ../a.c')).toEqual({
    compiler: 'gcc',
    source: '../a.c',
    object: 'a.o',
    flags: ['-I.', '-O2'],
  });
  expect(parseCompileCommand('touch a.d.tmp')).toBeUndefined();
  expect(parseCompileCommand('gcc -shared -o a.so a.o')).toBeUndefined();
});

test('compile commands belong to the directory that make has entered', () => {
  const lines = [
    'gcc -c -o a.o a.c',
    "make: Entering directory '/tree/malloc'",
    "make[1]: Entering directory '/tree/malloc/more'",
    'gcc -c -o b.o b.c',
    "make[1]: Leaving directory '/tree/malloc/more'",
    'gcc -c -o c.o c.c',
    "make: Leaving directory '/tree/malloc'",
    'gcc -c -o d.o d.c',
  ];
  const found = parseCompileCommands(lines.join('\n'), '/tree/build');
  expect(found.map(({ source, directory }) => [source, directory])).toEqual([
    ['a.c', undefined],
    ['b.c', '../malloc/more'],
    ['c.c', '../malloc'],
    ['d.c', undefined],
  ]);
});

test('key rings are found in both forms of apt sources', () => {
  const stanzas = 'Types: deb\nURIs: x\n\n# comment\nTypes: deb\nSigned-By: /keys/a.gpg\n';
  expect(signedByOf(stanzas, 1, true)).toBeUndefined();
  expect(signedByOf(stanzas, 2, true)).toBe('/keys/a.gpg');
  expect(signedByOf('#\ndeb [arch=amd64 signed-by=/keys/b.gpg] http://host/ x main\n', 2, false)).toBe(
    '/keys/b.gpg',
  );
  expect(parseIndexTarget('http://host/\tx\tmain\t$(ORIGIN)\t/etc/a:1')).toMatchObject({
    origin: '',
    entry: '/etc/a:1',
  });
  expect(parseIndexTarget('')).toBeUndefined();
});
