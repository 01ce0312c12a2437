// The page on building patches explains every refusal as the program does, and each one has a test that brings it about.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { refusalTable } from '../../src/build/refusal-table.js';

const top = join(import.meta.dirname, '../..');
const page = readFileSync(join(top, 'docs/building-patches.md'), 'utf8');

it('docs/building-patches.md has the table of the program', () => {
  const rows = page
    .slice(page.indexOf('## Refusals'))
    .replace(/\n### .*/s, '')
    .split('\n')
    .filter((line) => /^\| [A-Z_]+ /.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  expect(rows).toEqual(
    Object.entries(refusalTable).map(([code, { meaning, wayOut }]) => [code, meaning, wayOut]),
  );
});

const tests = ['build', 'e2e', 'engine', 'make']
  .flatMap((layer) => readdirSync(join(top, 'test', layer)).map((name) => join(top, 'test', layer, name)))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => readFileSync(file, 'utf8'));

it.each(Object.keys(refusalTable))('%s is brought about by a test', (code) => {
  expect(tests.some((text) => text.includes(`'${code}'`))).toBe(true);
});
