// Processes that make themselves hard to read: the patcher says what it found, in bounded memory, and never fails otherwise.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { advance, remoteAddress, type RemoteAddress } from '../../src/base/address.js';
import { KcareError } from '../../src/base/errors.js';
import { frameRulesAt, type FrameDescription } from '../../src/elf/index.js';
import { apply, unload } from '../../src/engine/index.js';
import { frameFinder, type MemoryReader } from '../../src/engine/frames.js';
import { findImages } from '../../src/engine/images.js';
import { findSignalReturn } from '../../src/engine/signal-return.js';
import { findSymbol } from '../../src/engine/symbols.js';
import { backtrace } from '../../src/engine/unwind.js';
import { encodeHeader } from '../../src/link/header.js';
import { mappedObjects, parseMaps, parseStatus, ProcessMemory, readMaps } from '../../src/proc/index.js';
import { random } from '../random.js';
import { answers, ask, expectPatchable, patient, Workshop } from './conditions.js';

describe('a hostile process', () => {
  let workshop: Workshop;
  let hostile: string;

  beforeAll(() => {
    workshop = new Workshop();
    hostile = workshop.compileHostile();
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  async function start(way: string, library = workshop.library): Promise<Program> {
    const program = await workshop.run(hostile, way, library);
    await program.waitForLine(/^ready/);
    return program;
  }

  it('with 60,000 mappings is patched', async () => {
    const program = await start('mappings');
    expect(readMaps(program.pid).length).toBeGreaterThan(60_000);
    await expectPatchable({ program, library: workshop.library });
  });

  it('that maps its library 20,000 times is refused, with bounded work', async () => {
    const program = await start('copies');
    const report = await apply(program.pid, [answers(workshop.library, 1, 43)], patient);
    expect(report).toMatchObject({ result: 'refused', error: { code: 'TARGET_UNSUPPORTED' } });
    expect(report.error?.message).toContain('more than 64 times');
  });

  it('that maps and unmaps all the time is patched', async () => {
    const program = await start('changing');
    for (let round = 0; round < 5; round++) {
      const options = { ...patient, waitMs: 20_000 };
      const applied = await apply(program.pid, [answers(workshop.library, 1, 43)], options);
      expect(applied.result, applied.error?.message).toBe('applied');
      expect(await ask(program, 'answer')).toBe('answer 43');
      const unloaded = await unload(program.pid, options);
      expect(unloaded.result, unloaded.error?.message).toBe('unloaded');
      expect(await ask(program, 'answer')).toBe('answer 42');
    }
  });

  it('that rewrites an ELF header all the time is patched or refused, and lives', async () => {
    const program = await start('header');
    for (let round = 0; round < 40; round++) {
      const { result, error } = await apply(program.pid, [answers(workshop.library, 1, 43)], patient);
      expect(['applied', 'unchanged', 'refused', 'failed', 'busy'], error?.message).toContain(result);
      expect(error?.code).not.toBe('INTERNAL');
    }
    expect(await ask(program, 'answer')).toMatch(/^answer 4[23]$/);
  });

  it('that forks and executes all the time is patched', async () => {
    const program = await start('forks');
    await expectPatchable({ program, library: workshop.library });
  });

  it.each([
    ['line ends', 'a\rb\u2028c\u2029d\n\nlib.so'],
    ['escapes and marks of the kernel', '\u001b[2J\\012 [stack] (deleted)'],
    ['a path of 4,000 bytes of line ends', '\n'.repeat(200)],
  ])('whose library has %s in its path is patched', async (_, name) => {
    const deep = name.startsWith('\n\n\n');
    const directory = deep
      ? join(workshop.directory, ...Array.from({ length: 18 }, () => name))
      : workshop.directory;
    mkdirSync(directory, { recursive: true });
    const library = join(directory, deep ? 'x' : name);
    copyFileSync(workshop.library, library);
    const program = await start('plain', library);
    const report = await apply(program.pid, [answers(workshop.library, 1, 43)], patient);
    expect(report).toMatchObject({ result: 'applied' });
    expect(await ask(program, 'answer')).toBe('answer 43');
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
  });

  it('that forges 300 images is refused', async () => {
    const program = await workshop.start('none');
    const patch = answers(workshop.library, 1, 43);
    await apply(program.pid, [patch], patient);
    const memory = ProcessMemory.open(program.pid);
    const [image] = findImages(readMaps(program.pid), (address, length) => memory.read(address, length));
    memory.close();
    if (!image) throw new Error('There is no image.');
    const start = remoteAddress(0x1000_0000_0000n);
    const pages = Array.from({ length: 300 }, (_, index) => {
      const page = Buffer.alloc(4096);
      const address = advance(start, index * 4096);
      page.set(encodeHeader({ ...image, address, size: 4096, executableSize: 4096 }));
      return page;
    });
    const file = join(workshop.directory, 'forged');
    writeFileSync(file, Buffer.concat(pages));
    await ask(program, `code ${start.toString(16)} ${(300 * 4096).toString(16)} ${file}`);
    const before = readMappings(program.pid);
    const report = await unload(program.pid, patient);
    expect(report).toMatchObject({ result: 'refused', error: { code: 'HEADER_MALFORMED' } });
    expect(report.error?.message).toContain('more than 256 images');
    expect(readMappings(program.pid)).toEqual(before);
  });

  /** Memory of a real process in which every so many bytes one is another, the same at each look. */
  function damaged(read: MemoryReader, seed: number, every: number): MemoryReader {
    return (address, length) => {
      const bytes = Uint8Array.from(read(address, length));
      for (let index = 0; index < bytes.length; index++) {
        const place = Number((address + BigInt(index)) & 0xffff_ffffn);
        const hash = random(Math.imul(place ^ (seed * 0x9e3779b9), 0x85ebca6b) | 1)();
        if (hash % every === 0) bytes[index] = hash >>> 24;
      }
      return bytes;
    };
  }

  function onlyOurErrors(what: string, action: () => unknown): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof KcareError) || error.code === 'INTERNAL')
        throw new Error(what, { cause: error });
    }
  }

  it('whose memory is damaged anywhere gives nothing but an answer or an error of ours', async () => {
    const program = await workshop.start('none');
    const { pid } = program;
    const memory = ProcessMemory.open(pid);
    const maps = readMaps(pid);
    const objects = mappedObjects(pid);
    const own = objects.find(({ path }) => path === workshop.library) ?? objects[0];
    if (!own) throw new Error('There is no object.');
    for (let seed = 1; seed <= 60; seed++) {
      const every = [40, 400, 4000][seed % 3] ?? 40;
      const read = damaged((address, length) => memory.read(address, length), seed, every);
      const next = random(seed);
      for (const name of ['malloc', 'read', 'answer'])
        onlyOurErrors(`seed ${seed}, ${name}`, () => findSymbol(objects, own, { name, version: '' }, read));
      onlyOurErrors(`seed ${seed}, images`, () => findImages(maps, read));
      const finder = frameFinder(objects, maps, [], read);
      for (let round = 0; round < 10; round++) {
        const object = objects[next() % objects.length] ?? own;
        const inside = (): RemoteAddress => advance(object.start, next() % Number(object.end - object.start));
        const registers = new BigUint64Array(27).map(() => inside());
        onlyOurErrors(`seed ${seed}, frames`, () => finder(inside()));
        onlyOurErrors(`seed ${seed}, walk`, () => backtrace(registers, finder, () => inside()));
      }
    }
    onlyOurErrors('signal return', () =>
      findSignalReturn(
        [own],
        damaged((a, l) => memory.read(a, l), 7, 9),
      ),
    );
    memory.close();
  });

  it('whose maps and status are damaged gives nothing but an answer or an error of ours', async () => {
    const maps = readFileSync('/proc/self/maps', 'latin1');
    const status = readFileSync('/proc/self/status', 'latin1');
    const next = random(20261122);
    for (let round = 0; round < 2000; round++) {
      const damage = (text: string): string => {
        const at = next() % text.length;
        return text.slice(0, at) + String.fromCharCode(next() % 256) + text.slice(at + (next() % 3));
      };
      try {
        parseMaps(damage(damage(maps)));
      } catch (error) {
        expect(error).toBeInstanceOf(KcareError);
      }
      parseStatus(damage(damage(status)));
    }
    await Promise.resolve();
  });

  it('with unwind tables that claim gigabytes is not believed', async () => {
    const library = hugeTables();
    const program = await start('plain', library);
    const memory = ProcessMemory.open(program.pid);
    const objects = mappedObjects(program.pid, memory);
    const huge = objects.find(({ path }) => path === library);
    const finder = frameFinder(objects, [], [], (address, length) => memory.read(address, length));
    expect(() => finder(advance(huge?.start ?? remoteAddress(0), 0x1100))).toThrow(KcareError);
    memory.close();
    const report = await apply(program.pid, [answers(workshop.library, 1, 43)], patient);
    expect(report).toMatchObject({ result: 'applied' });
  });

  it('with unwind instructions that remember without end is not believed', () => {
    const define = [0x0c, 7, 8];
    const description = (instructions: readonly number[]): FrameDescription => ({
      ...{
        offset: 0,
        size: 0,
        startField: 0,
        start: 0,
        length: 1,
        instructions: Uint8Array.from(instructions),
      },
      common: {
        ...{ offset: 0, size: 0, codeAlignment: 1, dataAlignment: -8, returnRegister: 16 },
        ...{ isSignalFrame: false, pointerEncoding: 0, hasAugmentationData: false },
        instructions: Uint8Array.from(define),
      },
    });
    const remember = (times: number): number[] => Array.from({ length: times }, () => 0x0a);
    expect(frameRulesAt(description(remember(60)), 0).cfa).toMatchObject({ kind: 'register', register: 7 });
    expect(() => frameRulesAt(description(remember(100)), 0)).toThrow('too many states');
    expect(() => frameRulesAt(description([0x07, 0x80, 0x10]), 0)).toThrow('register 2048');
  });

  /** The library with unwind tables that claim four thousand million entries, in a segment of a petabyte. */
  function hugeTables(): string {
    const bytes = readFileSync(workshop.library);
    const count = bytes.readUInt16LE(56);
    const table = Number(bytes.readBigUInt64LE(32));
    for (let index = 0; index < count; index++) {
      const entry = table + index * 56;
      if (bytes.readUInt32LE(entry) !== 0x6474e550) continue;
      bytes.writeUInt32LE(0xffff_fff0, Number(bytes.readBigUInt64LE(entry + 8)) + 8);
      bytes.writeBigUInt64LE(2n ** 50n, entry + 40);
    }
    const path = join(workshop.directory, 'libhuge.so');
    writeFileSync(path, bytes);
    return path;
  }
});
