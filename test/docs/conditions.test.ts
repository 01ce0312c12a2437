// docs/conditions.md and the tests that it names are kept alike.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const top = join(import.meta.dirname, '../..');
const source = (file: string): string => readFileSync(join(top, file), 'utf8');

/** Rows of all tables of the page, without their heads: cells trimmed. */
const rows = source('docs/conditions.md')
  .split('\n')
  .filter((line) => line.startsWith('|') && !/^\|( condition | -+ )/.test(line))
  .map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );

const named = rows.map(([condition = '', , test = '']) => {
  const [, file = '', title = ''] = /^`(test\/[^`]+)`: (.+)$/.exec(test) ?? [];
  return { condition, file, title };
});

describe('docs/conditions.md', () => {
  it('has conditions, each once', () => {
    expect(rows.length).toBeGreaterThan(50);
    const conditions = rows.map(([condition]) => condition);
    expect(conditions).toEqual([...new Set(conditions)]);
  });

  it('has a condition, a known outcome and a test in every row', () => {
    for (const cells of rows) {
      expect(cells).toHaveLength(3);
      expect(cells[0]).not.toBe('');
      expect(cells[1]).toMatch(/^(patched|waits|refused|failed|gone|survives)\b/);
      expect(cells[2]).toMatch(/^`test\/[\w/-]+\.test\.ts`: \S/);
    }
  });

  it.each(named)('names an existing test for: $condition', ({ file, title }) => {
    expect(existsSync(join(top, file)), file).toBe(true);
    expect(source(file)).toContain(`'${title}'`);
  });

  it.each([
    'confinement',
    'ending',
    'objects',
    'forged-headers',
    'thread-local',
    'code',
    'failed-upgrade',
    'intents',
    'coroutines',
    'removal',
    'hostile',
    'hostile-tables',
  ])('names every test of engine/%s.test.ts', (name) => {
    const file = `test/engine/${name}.test.ts`;
    const titles = [...source(file).matchAll(/\bit\(\s*'([^']+)'/g)].map(([, title = '']) => title);
    expect(titles.length).toBeGreaterThan(1);
    const known = named.filter((row) => row.file === file).map(({ title }) => title);
    expect(titles.filter((title) => !known.includes(title))).toEqual([]);
  });
});
