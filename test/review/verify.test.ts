// Verifying a patch: what the builder makes is proved, and whatever is changed in it is refuted by the object alone.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import { ShippedObject } from '../../src/build/index.js';
import { parseElf } from '../../src/elf/index.js';
import { readPatch, writePatch, type Patch } from '../../src/patchfile/index.js';
import { verifyPatch } from '../../src/review/index.js';
import { random } from '../random.js';
import { patchSmallTree } from '../build/small-tree.js';
import { samplePatch, type Sample } from './sample.js';

let sample: Sample;
beforeAll(async () => {
  sample = await samplePatch();
});

async function reasonsAgainst(patch: Patch, object = sample.shipped): Promise<string[]> {
  const { verdict, findings } = await verifyPatch(patch, { shipped: object, debug: [] });
  const refuted = findings.filter(({ state }) => state === 'refuted');
  expect(verdict).toBe(refuted.length === 0 ? 'proved' : 'refuted');
  return refuted.map(({ about, subject, reason }) => `${about} ${subject}: ${reason}`);
}

const changed = (change: Partial<Patch>): Patch => ({ ...sample.patch, ...change });

/** The patch with one hunk or symbol changed. */
function withChanged<Key extends 'hunks' | 'symbols'>(
  key: Key,
  name: string,
  change: Partial<Patch[Key][number]>,
): Patch {
  return changed({
    [key]: sample.patch[key].map((one) =>
      one.name === name && !('where' in one && one.where === 'patch') ? { ...one, ...change } : one,
    ),
  });
}

test('the patch has what the tests below change, and is proved', async () => {
  const { patch } = sample;
  expect(patch.hunks.map(({ kind, name }) => `${kind} ${name}`).sort()).toEqual([
    'guard checked.cold',
    'replace checked',
  ]);
  expect(patch.symbols.filter(({ where }) => where === 'object').map(({ name }) => name)).toEqual(
    expect.arrayContaining(['helper', 'calls', 'strlen.got', 'work']),
  );
  expect(patch.metadata.units).toContainEqual(expect.objectContaining({ file: 'unit.c', isUnique: true }));
  expect(patch.metadata.proof.find(({ symbol }) => symbol === 'calls')?.operand).toBeDefined();
  expect(await reasonsAgainst(readPatch(writePatch(patch)))).toEqual([]);
});

describe('refuted is', () => {
  test('a hunk with another byte', async () => {
    const hunk = sample.patch.hunks.find(({ name }) => name === 'checked');
    const original = Uint8Array.from(hunk?.original ?? []);
    original[20] = (original[20] ?? 0) ^ 1;
    expect(await reasonsAgainst(withChanged('hunks', 'checked', { original }))).toEqual([
      expect.stringMatching(/^hunk checked: the bytes at 0x[0-9a-f]+ are not/),
    ]);
  });

  test('a hunk that is shorter than the function', async () => {
    const hunk = sample.patch.hunks.find(({ name }) => name === 'checked');
    if (!hunk) throw new Error('no hunk');
    const size = hunk.size - 1;
    const patch = withChanged('hunks', 'checked', { size, original: hunk.original.subarray(0, size) });
    expect(await reasonsAgainst(patch)).toEqual([
      expect.stringMatching(/^hunk checked: the unwind table has/),
    ]);
  });

  test('a hunk in the middle of a function', async () => {
    const hunk = sample.patch.hunks.find(({ name }) => name === 'checked');
    if (!hunk) throw new Error('no hunk');
    const patch = withChanged('hunks', 'checked', {
      address: hunk.address + 4,
      size: hunk.size - 4,
      original: hunk.original.subarray(4),
    });
    expect((await reasonsAgainst(patch)).join('\n')).toMatch(/lies within the function at/);
  });

  test('a patch that forgets to guard the unlikely part', async () => {
    const hunks = sample.patch.hunks.filter(({ kind }) => kind === 'replace');
    expect((await reasonsAgainst(changed({ hunks }))).join('\n')).toMatch(
      /hunk checked: it jumps into the code at .* that the patch does not guard/,
    );
  });

  test.each(['helper', 'calls', 'strlen.got', 'work'])(
    'a place of %s that is four bytes off',
    async (name) => {
      const symbol = sample.patch.symbols.find((one) => one.name === name && one.where === 'object');
      if (symbol?.where !== 'object') throw new Error(name);
      const reasons = await reasonsAgainst(withChanged('symbols', name, { value: symbol.value + 4 }));
      expect(reasons.some((reason) => reason.startsWith(`symbol ${name}: `))).toBe(true);
    },
  );

  test('a proof that is about another place', async () => {
    const { metadata } = sample.patch;
    const proof = metadata.proof.map((one) =>
      one.symbol === 'calls' ? { ...one, address: (one.address ?? 0) + 8 } : one,
    );
    expect((await reasonsAgainst(changed({ metadata: { ...metadata, proof } }))).join('\n')).toMatch(
      /symbol calls: the proof is about/,
    );
  });

  test('an operand that leads elsewhere', async () => {
    const { metadata } = sample.patch;
    const proof = metadata.proof.map((one) =>
      one.operand ? { ...one, operand: { ...one.operand, at: one.operand.at + 1 } } : one,
    );
    expect((await reasonsAgainst(changed({ metadata: { ...metadata, proof } }))).join('\n')).toMatch(
      /symbol calls: nothing in the object shows that it is at/,
    );
  });

  test('a unit that the compiler did not make, and one that is there twice', async () => {
    const { metadata } = sample.patch;
    const unit = metadata.units.find(({ isUnique }) => isUnique);
    if (!unit) throw new Error('no unit');
    const other = { ...unit, sha256: '0'.repeat(64) };
    expect(await reasonsAgainst(changed({ metadata: { ...metadata, units: [other] } }))).toEqual([
      expect.stringMatching(/^unit unit.c: its .* are not those of the compiler/),
    ]);
    const [address, size] = [sample.shipped.text.address, 1];
    const common = { ...unit, address, size, masked: 'AQ==' };
    expect(await reasonsAgainst(changed({ metadata: { ...metadata, units: [common] } }))).toEqual(
      expect.arrayContaining(['unit unit.c: its code is there more than once']),
    );
    const cut = { ...unit, masked: unit.masked.slice(4) };
    expect(await reasonsAgainst(changed({ metadata: { ...metadata, units: [cut] } }))).toEqual([
      'unit unit.c: what is recorded of its masked bytes does not fit its size',
    ]);
  });

  test('a relocation that leads out of the object', async () => {
    const index = sample.patch.symbols.findIndex(({ name, where }) => name === 'calls' && where === 'object');
    const relocations = sample.patch.relocations.map((one) =>
      one.symbol === index ? { ...one, addend: one.addend + 0x100000 } : one,
    );
    expect((await reasonsAgainst(changed({ relocations }))).join('\n')).toMatch(
      /^relocations .text\+0x[0-9a-f]+: .*bytes away from calls, out of its part of the object/,
    );
  });

  test('a new function without an unwind entry of its length', async () => {
    const symbols = sample.patch.symbols.map((one) =>
      one.where === 'patch' && one.name === 'checked' ? { ...one, size: one.size - 1 } : one,
    );
    expect(await reasonsAgainst(changed({ symbols }))).toEqual([
      'unwinding checked: has no unwind entry of its own length',
    ]);
  });

  test('everything at once, by an object of another build', async () => {
    const other = await samplePatch();
    const bytes = Buffer.from(other.shipped.elf.bytes);
    const at = bytes.indexOf(Buffer.from(sample.patch.buildId, 'hex'));
    bytes[at] = (bytes[at] ?? 0) ^ 0xff;
    const { offset, size } = other.shipped.text;
    bytes.fill(0x90, offset, offset + size);
    const reasons = (await reasonsAgainst(sample.patch, new ShippedObject(bytes, 'other'))).join('\n');
    expect(reasons).toMatch(/object libunit.so: its build-id is/);
    expect(reasons).toMatch(/hunk checked: the bytes at/);
    expect(reasons).toMatch(/hunk checked.cold: the bytes at/);
    expect(reasons).toMatch(/unit unit.c: its .* are not those of the compiler/);
    expect(reasons).toMatch(/symbol calls: nothing in the object shows/);
  });
});

test('a function that ends with a call through a stub has no part there', async () => {
  const text = (step: number): string =>
    `extern int first(int), second(int);\nint choose(int value) { return value > ${step} ? first(value) : second(value); }\n`;
  const { patch, shipped } = await patchSmallTree({
    before: text(1),
    after: text(2),
    functions: ['choose'],
    others: { 'other.c': 'int first(int v) { return v; }\nint second(int v) { return v; }\n' },
    extraFlags: ['-fplt'],
    link: [],
  });
  if (!patch) throw new Error('no patch');
  expect([...shipped.stubsByName.keys()]).toEqual(expect.arrayContaining(['first', 'second']));
  expect(await reasonsAgainst(patch, shipped)).toEqual([]);
});

test('a debug file tells the names of static functions, and refutes wrong ones', async () => {
  const file = `${sample.directory}/running/whole.so`;
  const objects = ['unit.o', 'work.o'];
  execFileSync('gcc', ['-shared', '-Wl,--build-id=sha1', '-Wl,-Bsymbolic', '-o', file, ...objects], {
    cwd: `${sample.directory}/running`,
  });
  const debug = [parseElf(fs.readFileSync(file))];
  const about = async (patch: Patch): Promise<string> =>
    (await verifyPatch(patch, { shipped: sample.shipped, debug })).findings
      .map(({ state, subject, reason }) => `${state} ${subject}: ${reason}`)
      .join('\n');
  const honest = await about(sample.patch);
  expect(honest).toMatch(/proved helper: the debug file has it at/);
  expect(honest).toMatch(/proved checked.cold: the debug file has it at/);
  expect(honest).not.toMatch(/^(?:refuted|open) checked/m);
  expect(await about(withChanged('hunks', 'checked.cold', { name: 'calm' }))).toMatch(
    /refuted calm: no symbol table has it at/,
  );
});

test('damaged patches and objects give a verdict or a clear error, never anything else', async () => {
  const seed = 20261122;
  const next = random(seed);
  const below = (limit: number): number => next() % limit;
  const damaged = (bytes: Uint8Array): Uint8Array => {
    if (below(4) === 0) return bytes.subarray(0, below(bytes.length));
    const copy = Uint8Array.from(bytes);
    for (let count = 1 + below(8); count > 0; count--) copy[below(copy.length)] = below(256);
    return copy;
  };
  const [patchBytes, objectBytes] = [writePatch(sample.patch), sample.shipped.elf.bytes];
  const verdicts = new Set<string>();
  for (let round = 0; round < 300; round++) {
    const isPatch = round % 2 === 0;
    try {
      const patch = readPatch(isPatch ? damaged(patchBytes) : patchBytes);
      const shipped = new ShippedObject(isPatch ? objectBytes : damaged(objectBytes), 'damaged');
      verdicts.add((await verifyPatch(patch, { shipped, debug: [] })).verdict);
    } catch (error) {
      if (!(error instanceof KcareError) || error.code === 'INTERNAL')
        throw new Error(`seed ${seed}, round ${round}`, { cause: error });
      verdicts.add(error.code);
    }
  }
  expect([...verdicts]).toEqual(
    expect.arrayContaining(['proved', 'refuted', 'PATCH_MALFORMED', 'ELF_MALFORMED']),
  );
});
