// Patches put together by hand from machine code, for a library compiled in the test.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { PatchToApply } from '../../src/engine/index.js';
import { buildIdOf, bytesAtAddress, loadRange, parseElf, readSymbols } from '../../src/elf/index.js';
import {
  writePatch,
  type Patch,
  type PatchRelocation,
  type PatchSection,
  type PatchSymbol,
} from '../../src/patchfile/index.js';

export interface Compiled {
  readonly program: string;
  readonly library: string;
}

/** Compiles fixtures/engine into `directory`. */
export function compileTarget(directory: string): Compiled {
  mkdirSync(directory, { recursive: true });
  const sources = join(import.meta.dirname, '../../fixtures/engine');
  const library = join(directory, 'libanswers.so');
  const program = join(directory, 'target');
  const flags = [
    '-std=c11',
    '-D_GNU_SOURCE',
    '-O2',
    '-g',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-Wno-maybe-uninitialized',
  ];
  execFileSync('cc', [
    ...flags,
    '-fPIC',
    '-shared',
    '-Wl,--build-id',
    '-Wl,-soname,libanswers.so',
    '-o',
    library,
    join(sources, 'answers.c'),
  ]);
  execFileSync('cc', [
    ...flags,
    '-pthread',
    '-o',
    program,
    join(sources, 'target.c'),
    library,
    `-Wl,-rpath,${directory}`,
  ]);
  return { program, library };
}

/** New code of one function; relocations are relative to its start. */
export interface NewCode {
  readonly code: string;
  readonly relocations?: readonly {
    readonly offset: number;
    readonly type: 2 | 4;
    readonly symbol: string;
    readonly addend: number;
  }[];
}

export interface Extras {
  readonly sections?: readonly PatchSection[];
  readonly symbols?: readonly PatchSymbol[];
  readonly relocations?: readonly PatchRelocation[];
}

export const returns = (value: number): NewCode => ({
  code: `b8${value.toString(16).padStart(2, '0')}000000c3`,
});

/** A patch of `library` that replaces the named functions. */
export function handmadePatch(
  library: string,
  level: number,
  functions: Readonly<Record<string, NewCode>>,
  extras: Extras = {},
): Patch {
  const elf = parseElf(readFileSync(library));
  // Programs export nothing: their functions are in the full table.
  const symbolTable = [...readSymbols(elf, '.dynsym'), ...readSymbols(elf, '.symtab')];
  const text: Buffer[] = [];
  const symbols: PatchSymbol[] = [...(extras.symbols ?? [])];
  const relocations: PatchRelocation[] = [...(extras.relocations ?? [])];
  let position = 0;
  const hunks = Object.entries(functions).map(([name, { code, relocations: own = [] }]) => {
    const original = symbolTable.find((symbol) => symbol.name === name);
    if (!original) throw new Error(`${library} has no ${name}`);
    const bytes = Buffer.from(code, 'hex');
    const padded = Buffer.alloc(Math.ceil(bytes.length / 16) * 16, 0x90);
    bytes.copy(padded);
    symbols.push(
      { name, where: 'object', value: original.value, size: original.size, isFunction: true },
      { name, where: 'patch', section: '.text', value: position, size: bytes.length, isFunction: true },
    );
    for (const { offset, type, symbol, addend } of own) {
      const index = symbols.findIndex((candidate) => candidate.name === symbol);
      relocations.push({ section: '.text', offset: position + offset, type, symbol: index, addend });
    }
    text.push(padded);
    position += padded.length;
    const { value: address, size } = original;
    return {
      kind: 'replace' as const,
      name,
      address,
      size,
      original: bytesAtAddress(elf, address, size),
      replacement: name,
    };
  });
  const range = loadRange(elf.segments);
  return {
    buildId: buildIdOf(elf) ?? '',
    // From virtual address 0, also where the object does not begin there.
    objectSize: range.end,
    metadata: {
      name: `answers level ${level}`,
      level,
      description: 'Other answers',
      cves: [{ id: 'CVE-2026-0001', description: 'Wrong answer', score: '5.0', url: 'https://example.org' }],
      package: 'libanswers',
      packageVersion: '1',
      fixedVersion: '2',
      objectName: basename(library),
      architecture: 'x86-64',
      date: '2026-11-22T00:00:00Z',
      builder: 'test',
      proof: [],
    },
    hunks,
    sections: [
      { name: '.text', bytes: Buffer.concat(text), size: position, alignment: 16 },
      ...(extras.sections ?? []),
    ],
    symbols,
    relocations,
  };
}

export function released(patch: Patch): PatchToApply {
  return {
    patch,
    patchset: 'U20261122_01',
    sha256: createHash('sha256').update(writePatch(patch)).digest('hex'),
  };
}
