// The ELF parser agrees with readelf on the libraries of this machine, and survives damage.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import {
  buildIdOf,
  findSection,
  parseEhFrame,
  parseElf,
  readDynamicNames,
  readLinkage,
  readRelocations,
  readSymbols,
} from '../../src/elf/index.js';
import { random } from '../random.js';

const library = '/lib/x86_64-linux-gnu/libm.so.6';

function readelf(...flags: string[]): string {
  return execFileSync('readelf', [...flags, library], { encoding: 'utf8', maxBuffer: 1 << 28 });
}

/** readelf prints the same, but fails on libraries whose separate debug file is installed. */
function objdumpFrames(): string {
  return execFileSync('objdump', ['--dwarf=frames', library], { encoding: 'utf8', maxBuffer: 1 << 28 });
}

describe('ELF parser', () => {
  const elf = parseElf(readFileSync(library));

  it('names the sections as readelf does, with their sizes and alignments', () => {
    const rows = [
      ...readelf('-SW').matchAll(/^ +\[ *\d+\] (\S+) .* ([0-9a-f]{6}) ([0-9a-f]{6}) .* (\d+)$/gm),
    ];
    expect(rows.length).toBeGreaterThan(20);
    expect(
      elf.sections.slice(1).map((section) => [section.name, section.offset, section.size, section.alignment]),
    ).toEqual(
      rows.map(([, name, offset, size, alignment]) => [
        name,
        parseInt(offset ?? '', 16),
        parseInt(size ?? '', 16),
        Number(alignment),
      ]),
    );
  });

  it('finds the build-id', () => {
    expect(readelf('-n')).toContain(`Build ID: ${buildIdOf(elf) ?? 'none'}`);
  });

  it('reads dynamic symbols with versions', () => {
    const names = readSymbols(elf, '.dynsym')
      .filter((symbol) => symbol.name !== '')
      .map(({ name, version, versionIsDefault, sectionIndex }) => {
        // readelf leaves out the version of the symbols that name the versions themselves.
        if (version === '' || sectionIndex === 0xfff1) return name;
        return name + (versionIsDefault && sectionIndex !== 0 ? '@@' : '@') + version;
      });
    const expected = [
      ...readelf('--dyn-syms', '-W').matchAll(/^ +\d+: .* (?:UND|ABS|\d+) (\S+)(?: \(\d+\))?$/gm),
    ].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(500);
    expect(names).toEqual(expected);
  });

  it('reads every relocation', () => {
    const count = elf.sections.filter((section) => section.type === 4).flatMap(readRelocations).length;
    expect([...readelf('-rW').matchAll(/^[0-9a-f]{16} /gm)]).toHaveLength(count);
  });

  it('knows the needed libraries and the slots of imported functions', () => {
    expect(readDynamicNames(elf).soname).toBe('libm.so.6');
    expect(readDynamicNames(elf).needed).toContain('libc.so.6');
    const { slots, indirect, stubs } = readLinkage(elf);
    expect(slots.length).toBeGreaterThan(0);
    expect(indirect.length).toBeGreaterThan(0);
    expect(stubs.every(({ slot }) => [...slots, ...indirect].includes(slot))).toBe(true);
  });

  it('reads the unwind tables as readelf does', () => {
    const section = findSection(elf, '.eh_frame');
    const ranges = parseEhFrame(section?.bytes ?? new Uint8Array(), section?.address ?? 0).map(
      ({ start, length }) =>
        `${start.toString(16).padStart(16, '0')}..${(start + length).toString(16).padStart(16, '0')}`,
    );
    const expected = [...objdumpFrames().matchAll(/FDE .* pc=([0-9a-f]+\.\.[0-9a-f]+)/g)].map(
      ([, range]) => range,
    );
    expect(ranges.length).toBeGreaterThan(500);
    expect(ranges).toEqual(expected);
  });

  it('refuses or reads files with random damage, and never crashes', () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcare-elf-'));
    try {
      writeFileSync(
        join(directory, 'unit.c'),
        'int table[4]; int add(int a, int b) { return table[a & 3] + b; }\n',
      );
      execFileSync('cc', ['-shared', '-fPIC', '-O2', '-o', 'unit.so', 'unit.c'], { cwd: directory });
      const whole = readFileSync(join(directory, 'unit.so'));
      const next = random(1122);
      let refused = 0;
      for (let round = 0; round < 3000; round++) {
        const damaged = Buffer.from(
          whole.subarray(0, round % 7 === 0 ? next() % whole.length : whole.length),
        );
        const inHeaders = next() % 2 === 0;
        for (let count = 1 + (next() % 6); count > 0 && damaged.length > 0; count--) {
          damaged[next() % (inHeaders ? Math.min(1024, damaged.length) : damaged.length)] = next() & 0xff;
        }
        try {
          const parsed = parseElf(damaged);
          readSymbols(parsed, '.symtab');
          readLinkage(parsed);
          readDynamicNames(parsed);
          buildIdOf(parsed);
          const frames = findSection(parsed, '.eh_frame');
          if (frames) parseEhFrame(frames.bytes, frames.address);
        } catch (error) {
          if (!(error instanceof KcareError)) throw error;
          refused++;
        }
      }
      expect(refused).toBeGreaterThan(100);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
