// A small, valid patch written in code, for tests that need one.
import type { Patch } from '../../src/patchfile/index.js';

export function samplePatch(overrides: Partial<Patch> = {}): Patch {
  return {
    buildId: '00112233445566778899aabbccddeeff00112233',
    objectSize: 0x10000,
    metadata: {
      name: 'sample',
      level: 3,
      description: 'A patch for tests',
      cves: [
        { id: 'CVE-2026-0001', description: 'An example', score: '7.5', url: 'https://example.org/cve' },
      ],
      package: 'libsample1',
      packageVersion: '1.0-1',
      fixedVersion: '1.0-2',
      objectName: 'libsample.so.1',
      architecture: 'x86-64',
      date: '2026-11-22T00:00:00Z',
      builder: 'kcare-build',
      proof: [
        {
          symbol: 'parse',
          how: 'object-bytes',
          detail: 'parse.o at 0x1000',
          address: 0x1000,
          operand: { at: 0x3000, distance: -8 },
        },
      ],
      units: [
        {
          file: 'parse.c',
          address: 0x1000,
          size: 16,
          isUnique: true,
          masked: 'EA==',
          sha256: '00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff',
        },
      ],
    },
    hunks: [
      {
        kind: 'replace',
        name: 'parse',
        address: 0x1000,
        size: 16,
        original: new Uint8Array(16).fill(0x90),
        replacement: 'parse',
      },
      { kind: 'guard', name: 'parse.cold', address: 0x2000, size: 4, original: new Uint8Array(4).fill(0xcc) },
    ],
    sections: [
      { name: '.text', bytes: new Uint8Array(32).fill(0xc3), size: 32, alignment: 16 },
      { name: '.rodata', bytes: Buffer.from('hello\0'), size: 6, alignment: 1 },
      { name: '.kcare.got', bytes: new Uint8Array(8), size: 8, alignment: 8 },
      { name: '.data', bytes: new Uint8Array(8), size: 8, alignment: 8 },
      { name: '.bss', bytes: new Uint8Array(0), size: 64, alignment: 8 },
    ],
    symbols: [
      { name: 'parse', where: 'object', value: 0x1000, size: 16, isFunction: true },
      { name: 'parse.cold', where: 'object', value: 0x2000, size: 4, isFunction: true },
      { name: 'parse', where: 'patch', section: '.text', value: 0, size: 32, isFunction: true },
      { name: 'message', where: 'patch', section: '.rodata', value: 0, size: 6, isFunction: false },
      { name: 'malloc', where: 'foreign', version: 'GLIBC_2.2.5' },
    ],
    relocations: [
      { section: '.text', offset: 4, type: 2, symbol: 3, addend: -4 },
      { section: '.text', offset: 12, type: 4, symbol: 0, addend: -4 },
      { section: '.kcare.got', offset: 0, type: 1, symbol: 4, addend: 0 },
    ],
    ...overrides,
  };
}
