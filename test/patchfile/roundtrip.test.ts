// The patch file: what is written is read back, the standard tools read it, and damage is refused.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import { readPatch, writePatch } from '../../src/patchfile/index.js';
import { random } from '../random.js';
import { samplePatch } from './sample.js';

/** The same value with plain Uint8Arrays in place of Buffers, which compare as unequal types. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]));
}

describe('patch file', () => {
  it('is read back as it was written', () => {
    expect(plain(readPatch(writePatch(samplePatch())))).toEqual(plain(samplePatch()));
  });

  it('keeps its hooks, in a version of its own, and refuses those that name no function of it', () => {
    const { hunks } = samplePatch();
    const name = hunks.find(({ kind }) => kind === 'replace')?.replacement ?? '';
    const hooks = [
      { kind: 'before-apply', function: name },
      { kind: 'update', function: name, undo: name },
    ] as const;
    const patch = samplePatch({ hooks });
    const bytes = Buffer.from(writePatch(patch));
    expect(readPatch(bytes).hooks).toEqual(hooks);
    const older = Buffer.from(bytes);
    const note = older.indexOf('kcare\0\0\0');
    expect(older.readUInt32LE(note - 4)).toBe(2);
    older.writeUInt32LE(1, note - 4);
    expect(() => readPatch(older)).toThrow(/hooks in format 1/);
    for (const wrong of [
      [{ kind: 'update', function: 'nowhere' }],
      [{ kind: 'after-apply', function: name, undo: name }],
      [...hooks, ...hooks],
      Array.from({ length: 17 }, () => hooks[0]),
    ] as const) {
      expect(() => writePatch(samplePatch({ hooks: wrong }))).toThrow(/hook/);
    }
  });

  it('is the same for the same patch', () => {
    expect(Buffer.compare(writePatch(samplePatch()), writePatch(samplePatch()))).toBe(0);
  });

  it('is read by readelf and objdump without complaint', () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcare-patchfile-'));
    try {
      const file = join(directory, 'sample.kpatch');
      writeFileSync(file, writePatch(samplePatch()));
      for (const [tool, flag] of [
        ['readelf', '-aW'],
        ['objdump', '-dr'],
      ] as const) {
        const output = execFileSync('sh', ['-c', `${tool} ${flag} "$1" 2>&1`, 'sh', file], {
          encoding: 'utf8',
        });
        expect(output).not.toMatch(/warning|error|corrupt/i);
        expect(output).toContain('parse');
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  const broken: [string, Parameters<typeof samplePatch>[0]][] = [
    [
      'a relocation outside its section',
      { relocations: [{ section: '.text', offset: 30, type: 2, symbol: 0, addend: 0 }] },
    ],
    [
      'a symbol outside its section',
      { symbols: [{ name: 'x', where: 'object', value: 0xffff, size: 2, isFunction: true }] },
    ],
    ['no hunks', { hunks: [] }],
    ['a bad build-id', { buildId: 'XYZ' }],
    ['overlapping hunks', { hunks: samplePatch().hunks.map((hunk) => ({ ...hunk, address: 0x1000 })) }],
  ];
  it.each(broken)('with %s is refused', (_, overrides) => {
    expect(() => writePatch(samplePatch(overrides))).toThrow(
      expect.objectContaining({ code: 'PATCH_MALFORMED' }),
    );
  });

  it('cut off anywhere is refused with a code', () => {
    const whole = writePatch(samplePatch());
    for (let length = 0; length < whole.length; length++) {
      expect(() => readPatch(whole.subarray(0, length))).toThrow(KcareError);
    }
  });

  it('with random damage is read or refused, and never crashes the reader', () => {
    const whole = writePatch(samplePatch());
    const next = random(20261122);
    let refused = 0;
    for (let round = 0; round < 20_000; round++) {
      const damaged = Buffer.from(whole);
      for (let count = 1 + (next() % 4); count > 0; count--) damaged[next() % damaged.length] = next() & 0xff;
      try {
        readPatch(damaged);
      } catch (error) {
        if (!(error instanceof KcareError) || error.code === 'INTERNAL') throw error;
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(1000);
  });
});
