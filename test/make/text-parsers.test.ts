// Texts that other programs write: linker maps, damaged ones too, and sources in which line numbers are kept.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { keepLineNumbers } from '../../src/make/line-numbers.js';
import { parseLinkMap } from '../../src/make/link-map.js';
import { random } from '../random.js';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-texts-'));
afterAll(() => fs.rmSync(directory, { recursive: true }));
const inDirectory = (name: string): string => path.join(directory, name);

test('a linker map tells where each section of each unit went, as the symbol table does', () => {
  for (const name of ['first', 'second']) {
    fs.writeFileSync(
      inDirectory(`${name}.c`),
      `int ${name}_data = 1; int ${name}(int v) { return v * ${name}_data; }\n`,
    );
    execFileSync('gcc', ['-O2', '-fPIC', '-c', `${name}.c`], { cwd: directory });
  }
  execFileSync('gcc', ['-shared', '-Wl,-Map=map', '-o', 'both.so', 'first.o', 'second.o'], {
    cwd: directory,
  });
  const text = fs.readFileSync(inDirectory('map'), 'utf8');
  const map = parseLinkMap(text);
  const symbols = execFileSync('nm', ['both.so'], { cwd: directory, encoding: 'utf8' });
  const address = (name: string): number =>
    parseInt(new RegExp(`^([0-9a-f]+) . ${name}$`, 'm').exec(symbols)?.[1] ?? '', 16);
  for (const name of ['first', 'second']) {
    const sections = map?.inputs.get(`${name}.o`) ?? [];
    const start = (section: string): number | undefined =>
      sections.find((candidate) => candidate.name === section)?.address;
    expect(start('.text')).toBe(address(name));
    expect(start('.data')).toBe(address(`${name}_data`));
  }
  const next = random(271828);
  for (let round = 0; round < 100; round++) {
    const damaged = Buffer.from(text);
    for (let change = 0; change < 50; change++) damaged[next() % damaged.length] = next() & 0x7f;
    const half = damaged.subarray(0, next() % damaged.length).toString('latin1');
    for (const [, sections] of parseLinkMap(half)?.inputs ?? [])
      for (const { size } of sections) expect(size).toBeGreaterThan(0);
  }
});

/** The number that the compiler gives to the line of each `use(ID, __LINE__)`. */
function linesOfUses(lines: readonly string[]): Map<string, string> {
  const source = inDirectory('unit.c');
  fs.writeFileSync(source, `${lines.join('\n')}\n`);
  const text = execFileSync('gcc', ['-E', '-P', '-w', source], { encoding: 'utf8' });
  return new Map(
    [...text.matchAll(/use\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)/g)].map(([, id = '', line = '']) => [id, line]),
  );
}

/** In some of these no directive may stand; ID becomes a number of its own. */
const pieces = [
  ['  use(ID, __LINE__);'],
  ['  /* a comment', '     of two lines */ use(ID, __LINE__);'],
  ['  use( // within parentheses', '      ID, __LINE__);'],
  ['#define WIDE_ID(a) \\', '  use(a, \\', '  __LINE__)', '  WIDE_ID(ID);'],
  ['  text = "a string \\', '  /* that goes on"; use(ID, __LINE__);'],
  ['  text = "/* no comment"; if (\'(\') use(ID, __LINE__);'],
  ['#if 0', '  nothing (', '#endif', '  use(ID, __LINE__);'],
  ["  // it's a comment (", '', '  use(ID, __LINE__);'],
];

test('every line that a patch leaves alone keeps its number, whatever stands around it', () => {
  const next = random(31415);
  let compared = 0;
  for (let round = 0; round < 30; round++) {
    const [before, after]: [string[], string[]] = [[], []];
    const origins: (number | undefined)[] = [];
    for (let id = 0; id < 15; id++) {
      const piece = (pieces[next() % pieces.length] ?? []).map((line) => line.replaceAll('ID', String(id)));
      const fate = next() % 4;
      if (fate === 1) {
        after.push('  more();', '');
        origins.push(undefined, undefined);
      }
      for (const line of piece) {
        before.push(line);
        if (fate === 0) continue;
        after.push(line);
        origins.push(before.length);
      }
      before.push('}');
      after.push('}');
      origins.push(before.length);
    }
    const [old, kept] = [
      linesOfUses(before),
      linesOfUses(keepLineNumbers(after.join('\n'), origins).split('\n')),
    ];
    for (const [id, line] of kept) {
      expect(line, `use ${id} of:\n${after.join('\n')}`).toBe(old.get(id));
      compared++;
    }
  }
  expect(compared).toBeGreaterThan(200);
});
