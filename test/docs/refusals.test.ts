// The pages on building patches explain every refusal as the program does, and each one has a test that brings it about.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { refusalTable } from '../../src/build/refusal-table.js';
import { kernelRefusalTable } from '../../src/kbuild/refusals.js';

const top = join(import.meta.dirname, '../..');
const refusalRows = (page: string): string[][] => {
  const text = readFileSync(join(top, 'docs', page), 'utf8');
  return text
    .slice(text.indexOf('## Refusals'))
    .replace(/\n### .*/s, '')
    .split('\n')
    .filter((line) => /^\| [A-Z_]+ /.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
};

type Table = Readonly<Record<string, { readonly meaning: string; readonly wayOut: string }>>;

it.each<[string, Table]>([
  ['building-patches.md', refusalTable],
  ['building-kernel-patches.md', kernelRefusalTable],
])('docs/%s has the table of the program', (page, table) => {
  expect(refusalRows(page)).toEqual(
    Object.entries(table).map(([code, { meaning, wayOut }]) => [code, meaning, wayOut]),
  );
});

const tests = ['build', 'e2e', 'engine', 'kbuild', 'make']
  .flatMap((layer) => readdirSync(join(top, 'test', layer)).map((name) => join(top, 'test', layer, name)))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => readFileSync(file, 'utf8'));

it.each([...Object.keys(refusalTable), ...Object.keys(kernelRefusalTable)])(
  '%s is brought about by a test',
  (code) => {
    expect(tests.some((text) => text.includes(`'${code}'`))).toBe(true);
  },
);
