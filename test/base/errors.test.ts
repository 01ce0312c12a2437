// The tables in docs/errors.md and docs/exit-codes.md are those of the code, in both directions.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { asKcareError, errorTable, exitCodes, KcareError } from '../../src/base/errors.js';

const top = join(import.meta.dirname, '../..');

/** Rows of the first table of a page, without its head: cells trimmed. */
function tableOf(page: string): string[][] {
  const lines = readFileSync(join(top, 'docs', page), 'utf8').split('\n');
  const start = lines.findIndex((line) => line.startsWith('|'));
  const end = lines.findIndex((line, index) => index > start && !line.startsWith('|'));
  return lines.slice(start + 2, end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

it('docs/errors.md has exactly the rows of the code', () => {
  const rows = Object.entries(errorTable).map(([code, { exit, http, hint }]) => [
    `\`${code}\``,
    `${exit}`,
    `${http}`,
    hint,
  ]);
  expect(tableOf('errors.md')).toEqual(rows);
});

it('docs/exit-codes.md has exactly the codes of the code', () => {
  const rows = Object.entries(exitCodes).map(([name, code]) => [`\`${name}\``, `${code}`]);
  expect(tableOf('exit-codes.md').map((cells) => cells.slice(0, 2))).toEqual(rows);
});

it('every error is used somewhere', () => {
  const sources = readdirSync(join(top, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => [name, readFileSync(join(top, 'src', name), 'utf8')] as const);
  const elsewhere = sources
    .filter(([name]) => name !== 'base/errors.ts')
    .map(([, text]) => text)
    .join('\n');
  const inTable = readFileSync(join(top, 'src/base/errors.ts'), 'utf8');
  const mapped = inTable.slice(inTable.indexOf('export function asKcareError'));
  const unused = Object.keys(errorTable).filter((code) => !`${elsewhere}${mapped}`.includes(`'${code}'`));
  expect(unused).toEqual([]);
});

it('system errors keep their meaning', () => {
  const codeOf = (code: string): string => asKcareError(Object.assign(new Error('x'), { code })).code;
  expect(['EACCES', 'EPERM', 'ENOSPC', 'ENOENT', 'EIO'].map(codeOf)).toEqual([
    'NOT_PERMITTED',
    'NOT_PERMITTED',
    'NO_SPACE',
    'FILE_MISSING',
    'INTERNAL',
  ]);
  const own = new KcareError('USAGE', 'x');
  expect(asKcareError(own)).toBe(own);
});
