// A target that writes image headers itself: nothing is written, mapped or unmapped on their word.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { codeMappings, readMappings, readMemory } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { advance, remoteAddress, type RemoteAddress } from '../../src/base/address.js';
import { buildIdOf, parseElf, readSymbols } from '../../src/elf/index.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import { encodeHeader, type ImageHeader, type ImageHunk } from '../../src/link/index.js';
import { answers, ask, expectPatchable, expectRefused, patient, Workshop } from './conditions.js';

const pageSize = 4096;
const codeOffset = 0x800;
const dataOffset = 0xc00;

/** Facts of the target from which headers are forged. */
interface Facts {
  /** A free page within reach of the library. */
  readonly page: RemoteAddress;
  readonly buildId: string;
  readonly bias: RemoteAddress;
  /** Of answer(), in memory. */
  readonly function: RemoteAddress;
  readonly original: Uint8Array;
}

/** A jump from `jump` into the page. */
function hunkAt({ page }: Facts, jump: RemoteAddress, saved: Uint8Array): ImageHunk {
  const replacement = advance(page, codeOffset);
  const written = Buffer.alloc(5, 0xe9);
  written.writeInt32LE(Number(replacement - advance(jump, 5)), 1);
  return { name: 'answer', function: jump, functionSize: 16, jump, replacement, saved, written };
}

/** Harmless where it lies, but not code of the library. */
const hunkInPage = (facts: Facts): ImageHunk =>
  hunkAt(facts, advance(facts.page, dataOffset), Buffer.alloc(5));

function forge({ page, bias, buildId }: Facts, changes: Partial<ImageHeader>): Uint8Array {
  return encodeHeader({
    state: 'active',
    address: page,
    size: pageSize,
    executableSize: pageSize,
    level: 1,
    bias,
    buildId,
    sha256: '22'.repeat(32),
    patchset: 'U20261122_01',
    ehFrame: { offset: 0, size: 0 },
    escapes: false,
    hunks: [],
    description: {
      name: 'forged',
      description: '',
      package: '',
      packageVersion: '',
      fixedVersion: '',
      objectName: 'libforged.so',
      cves: [],
      hunks: ['answer'],
    },
    ...changes,
  });
}

describe('a header that the target wrote itself', () => {
  let workshop: Workshop;

  beforeAll(() => {
    workshop = new Workshop();
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  function factsOf({ pid }: Program): Facts {
    const elf = parseElf(readFileSync(workshop.library));
    const symbol = readSymbols(elf, '.dynsym').find(({ name }) => name === 'answer');
    const [code] = codeMappings(pid, workshop.library);
    const lowest = readMappings(pid)
      .find((line) => line.includes('/libc.so'))
      ?.split('-')[0];
    if (!symbol || !code || lowest === undefined) throw new Error('The program has no answer().');
    const bias = remoteAddress(code.start - BigInt(code.fileOffset));
    const address = advance(bias, symbol.value);
    return {
      page: remoteAddress(BigInt(`0x${lowest}`) - 0x1000_0000n),
      buildId: buildIdOf(elf) ?? '',
      bias,
      function: address,
      original: readMemory(pid, address, 5),
    };
  }

  async function plant(program: Program, page: RemoteAddress, bytes: Uint8Array): Promise<void> {
    const file = join(workshop.directory, 'planted');
    writeFileSync(file, bytes);
    const address = page.toString(16);
    expect(await ask(program, `code ${address} ${pageSize.toString(16)} ${file}`)).toBe(`code 0x${address}`);
  }

  const impossible: [string, RegExp, (facts: Facts) => Uint8Array][] = [
    ['is garbage', /version/, () => Buffer.from('KCAREIMG and more'.padEnd(300, '?'))],
    ['claims data that it lacks', /claims memory/, (facts) => forge(facts, { size: 0x10_0000_0000 })],
    [
      'claims code that it lacks',
      /claims memory/,
      (facts) => forge(facts, { size: 8192, executableSize: 8192 }),
    ],
    [
      'writes something else than a jump',
      /else than a jump/,
      (facts) => forge(facts, { hunks: [{ ...hunkInPage(facts), written: Buffer.alloc(5, 0x90) }] }),
    ],
    [
      'writes a jump to elsewhere',
      /jump to elsewhere/,
      (facts) => forge(facts, { hunks: [{ ...hunkInPage(facts), replacement: facts.function }] }),
    ],
    [
      'writes behind its function',
      /outside of its function/,
      (facts) => forge(facts, { hunks: [{ ...hunkInPage(facts), functionSize: 4 }] }),
    ],
  ];
  it.each(impossible)('and that %s is refused, and left alone', async (_, message, make) => {
    const program = await workshop.start('plain');
    const facts = factsOf(program);
    const bytes = make(facts);
    await plant(program, facts.page, bytes);
    expect(() => inspect(program.pid)).toThrow(message);
    await expectLeftAlone(program, facts, bytes, 'HEADER_MALFORMED', message);
  });

  it('and that writes into memory that is not code of its object is refused, and left alone', async () => {
    const program = await workshop.start('plain');
    const facts = factsOf(program);
    const bytes = forge(facts, { hunks: [hunkInPage(facts)] });
    await plant(program, facts.page, bytes);
    const message = /outside of the code of libanswers\.so/;
    await expectLeftAlone(program, facts, bytes, 'HEADER_MALFORMED', message);
  });

  it('and that saved other bytes than are in memory is refused, and left alone', async () => {
    const program = await workshop.start('plain');
    const facts = factsOf(program);
    const bytes = forge(facts, { hunks: [hunkAt(facts, facts.function, Buffer.alloc(5, 0xcc))] });
    await plant(program, facts.page, bytes);
    expect(inspect(program.pid)).toMatchObject([{ state: 'removed' }]);
    await expectLeftAlone(program, facts, bytes, 'BYTES_MISMATCH', /answer at 0x/);
  });

  it('and that is for an object that is not there is not removed while code leads to it (R1)', async () => {
    const program = await workshop.start('plain');
    const facts = factsOf(program);
    const hunk = hunkInPage(facts);
    const page = Buffer.alloc(pageSize);
    page.set(forge(facts, { buildId: 'ff'.repeat(20), hunks: [hunk] }));
    page.set(hunk.written, dataOffset);
    await plant(program, facts.page, page);
    const attempt = () => unload(program.pid, patient);
    await expectRefused(program.pid, attempt, 'HEADER_MALFORMED', /leads to the image .* is not there/);
    expect(readMemory(program.pid, facts.page, pageSize).equals(page)).toBe(true);
  });

  it('in memory that is also writable counts as nothing: the process is patched', async () => {
    const program = await workshop.start('plain');
    const facts = factsOf(program);
    await plant(program, facts.page, forge(facts, {}));
    await ask(program, `writable ${facts.page.toString(16)}`, /^writable 0/);
    expect(inspect(program.pid)).toEqual([]);
    await expectPatchable({ program, library: workshop.library });
  });

  async function expectLeftAlone(
    program: Program,
    facts: Facts,
    bytes: Uint8Array,
    code: string,
    message: RegExp,
  ): Promise<void> {
    const patch = answers(workshop.library, 1, 43);
    await expectRefused(program.pid, () => apply(program.pid, [patch], patient), code, message);
    await expectRefused(program.pid, () => unload(program.pid, patient), code, message);
    expect(readMemory(program.pid, facts.page, bytes.length).equals(bytes)).toBe(true);
    expect(readMemory(program.pid, facts.function, 5).equals(facts.original)).toBe(true);
    expect(await ask(program, 'answer')).toBe('answer 42');
  }
});
