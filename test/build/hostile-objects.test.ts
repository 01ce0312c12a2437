// Damaged object files and libraries: every stage between them and a patch gives a clear error, a refusal, or a patch.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import { assemblePatch } from '../../src/build/assemble.js';
import { CodeObject } from '../../src/build/code-object.js';
import { compareUnit } from '../../src/build/compare-unit.js';
import { correlate } from '../../src/build/correlate.js';
import { parseDebugInfo } from '../../src/build/debug-info.js';
import { Refusals } from '../../src/build/result.js';
import { ShippedObject } from '../../src/build/shipped-object.js';
import { checkPatch, readPatch, writePatch } from '../../src/patchfile/index.js';
import { random } from '../random.js';

const source = (step: number): string => `
#include <errno.h>
#include <stdio.h>
#include <string.h>
static int calls;
static const char *const names[] = {"one", "two", "three"};
static __thread int own;
int shared = 3;
static __attribute__((noinline)) int helper(const char *text) { calls++; own += ${step}; return strlen(text); }
int answer(int value) {
  static int sum = 7;
  switch (value) {
    case 0: errno = ${step}; return helper("zero");
    case 1: return helper(names[1]);
    case 2: return printf("%d\\n", sum += ${step});
    case 3: return shared += calls;
    case 4: return helper(__func__);
    default: return value * ${step} + own;
  }
}
int other(int value) { return answer(value) + helper("other"); }
`;

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-damaged-'));
afterAll(() => fs.rmSync(directory, { recursive: true }));

function compile(name: string, step: number, ...flags: readonly string[]): Buffer {
  const file = path.join(directory, name);
  fs.writeFileSync(`${file}.c`, source(step));
  const names = ['-c', '-o', `${file}.o`, `${file}.c`];
  execFileSync('gcc', ['-O2', '-fPIC', ...flags, ...names]);
  return fs.readFileSync(`${file}.o`);
}

const sections = ['-ffunction-sections', '-fdata-sections'];
const files = {
  stock: compile('stock', 1),
  original: compile('original', 1, ...sections),
  patched: compile('patched', 2, ...sections),
  shipped: Buffer.alloc(0),
};
const library = path.join(directory, 'libdamaged.so');
execFileSync('gcc', ['-shared', '-Wl,--build-id=sha1', '-o', library, path.join(directory, 'stock.o')]);
files.shipped = fs.readFileSync(library);

/** What a build does from compiled files on; returns what came of it. */
function build({ stock, original, patched, shipped: bytes }: typeof files): string {
  const refusals = new Refusals();
  const shipped = new ShippedObject(bytes, 'libdamaged.so');
  const correlation = correlate(new CodeObject(stock), shipped);
  if ('problem' in correlation) return correlation.problem;
  const compiles = {
    placement: correlation.placement,
    inlined: [],
    original: { object: new CodeObject(original), inlined: [] },
    patched: new CodeObject(patched),
  };
  const unit = compareUnit('damaged.c', compiles, [], refusals);
  if (!unit) return refusals.all.length > 0 ? 'refused' : 'unchanged';
  const facts = {
    ...{ name: 'damaged', level: 1, description: '', cves: [], package: '', packageVersion: '' },
    ...{ fixedVersion: '', objectName: 'libdamaged.so', date: '', builder: '' },
  };
  const patch = assemblePatch([unit], shipped, new Map(), facts, refusals);
  if (refusals.all.length > 0) return 'refused';
  checkPatch(readPatch(writePatch(patch)));
  return 'built';
}

/** The code of the error, or the result; anything but a KcareError is thrown on. */
function outcome(damaged: typeof files): string {
  try {
    return build(damaged);
  } catch (error) {
    if (error instanceof KcareError) return error.code;
    throw error;
  }
}

const kinds = ['stock', 'original', 'patched', 'shipped'] as const;

test('undamaged files give a patch', () => {
  expect(outcome(files)).toBe('built');
});

describe.each(kinds)('the %s file', (kind) => {
  test('cut off anywhere', () => {
    const whole = files[kind];
    const seen = new Set<string>();
    for (let step = 0; step < 120; step++) {
      const length = Math.floor((whole.length * step) / 120);
      seen.add(outcome({ ...files, [kind]: whole.subarray(0, length) }));
    }
    expect([...seen]).toContain('ELF_MALFORMED');
    expect([...seen]).not.toContain('built');
  });

  test('with random bytes in headers, tables and code', () => {
    const next = random(kind.length * 7919 + 1);
    const seen = new Set<string>();
    for (let round = 0; round < 400; round++) {
      const damaged = Buffer.from(files[kind]);
      const changes = 1 + (next() % 4);
      for (let change = 0; change < changes; change++) {
        // Half of them where headers and tables are: at the beginning and at the end.
        const span = next() % 2 === 0 ? 64 : damaged.length;
        const at =
          next() % 3 === 0
            ? damaged.length - 1 - (next() % Math.min(span * 20, damaged.length))
            : next() % span;
        damaged[at] = [0, 0xff, 0x80, 1, next() & 0xff][next() % 5] ?? 0;
      }
      seen.add(outcome({ ...files, [kind]: damaged }));
    }
    expect([...seen]).toContain('ELF_MALFORMED');
    expect(seen.size).toBeGreaterThan(2);
  });
});

test('damaged listings of debug information', () => {
  const file = path.join(directory, 'debug');
  fs.writeFileSync(`${file}.c`, source(1));
  execFileSync('gcc', ['-g', '-gdwarf-4', '-c', '-o', `${file}.o`, `${file}.c`]);
  const text = execFileSync('readelf', ['--debug-dump=info', '--wide', `${file}.o`], { encoding: 'utf8' });
  const lines = text.split('\n');
  expect(parseDebugInfo(text).roots).toHaveLength(1);
  const next = random(4711);
  for (let round = 0; round < 200; round++) {
    const damaged = lines.filter(() => next() % 8 !== 0);
    const at = next() % damaged.length;
    damaged[at] = (damaged[at] ?? '').slice(next() % 20).replace(/\d/g, () => String(next() % 10));
    const { roots } = parseDebugInfo(damaged.join('\n'));
    expect(roots.length).toBeLessThanOrEqual(lines.length);
  }
});
