// The engine on odd mappings: files deleted, replaced, mapped twice, loaded late, unloaded, and programs themselves.
import { readFileSync, renameSync, rmSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { codeMappings, readMappings } from '../../fixtures/support/process-memory.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import {
  answers,
  ask,
  expectPatchable,
  expectRefused,
  now,
  patient,
  untilItReads,
  Workshop,
} from './conditions.js';
import { handmadePatch, released, returns } from '../../fixtures/support/handmade.js';

describe('an object', () => {
  let workshop: Workshop;
  let library: string;

  beforeAll(() => {
    workshop = new Workshop();
    library = workshop.library;
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  describe('of which the file', () => {
    it('is deleted is patched', async () => {
      const copy = workshop.copyLibrary('deleted.so');
      const program = await workshop.start('plain', copy);
      rmSync(copy);
      await expectPatchable({ program, library, path: `${copy} (deleted)` });
    });

    it('was replaced by another build is patched by what is in memory', async () => {
      const copy = workshop.copyLibrary('replaced.so');
      const program = await workshop.start('plain', copy);
      const other = workshop.compileLibrary('other-build.so');
      renameSync(other, copy);
      await expectRefused(
        program.pid,
        () => apply(program.pid, [answers(copy, 1, 43)], patient),
        'BUILD_ID_MISMATCH',
        /maps no object/,
      );
      await expectPatchable({ program, library, path: `${copy} (deleted)` });
    });

    it('is mapped a second time as plain data is patched once', async () => {
      const program = await workshop.start('plain');
      await ask(program, `data ${library}`, /^mapped 0x/);
      expect(
        readMappings(program.pid).filter((line) => /r--p .*libanswers/.test(line)).length,
      ).toBeGreaterThan(3);
      await expectPatchable({ program, library });
    });

    it('is mapped shared and executable is refused: a patch would change the file', async () => {
      const shared = workshop.copyLibrary('shared.so');
      const contents = readFileSync(shared);
      const program = await workshop.start('plain');
      await ask(program, `share ${shared}`, /^mapped 0x/);
      await expectRefused(
        program.pid,
        () => apply(program.pid, [answers(library, 1, 43)], patient),
        'TARGET_UNSUPPORTED',
        /answer of shared\.so in memory that is not private/,
      );
      expect(readFileSync(shared).equals(contents)).toBe(true);
      expect(await ask(program, 'answer')).toBe('answer 42');
    });

    it('is another object’s, mapped as plain data, does not hide that object’s symbols', async () => {
      const program = await workshop.start('plain');
      const libc =
        readMappings(program.pid)
          .find((line) => line.endsWith('libc.so.6'))
          ?.split(' ')[2] ?? '';
      await ask(program, `data ${libc}`, /^mapped 0x/);
      const patch = handmadePatch(
        library,
        1,
        // jmp *slot(%rip)
        {
          answer: { code: 'ff2500000000', relocations: [{ offset: 2, type: 2, symbol: 'slot', addend: -4 }] },
        },
        {
          sections: [{ name: '.kcare.got', bytes: new Uint8Array(8), size: 8, alignment: 8 }],
          symbols: [
            { name: 'slot', where: 'patch', section: '.kcare.got', value: 0, size: 8, isFunction: false },
            { name: 'getpid', where: 'foreign', version: 'GLIBC_2.2.5' },
          ],
          relocations: [{ section: '.kcare.got', offset: 0, type: 1, symbol: 1, addend: 0 }],
        },
      );
      const report = await apply(program.pid, [released(patch)], patient);
      expect(report.error?.message).toBeUndefined();
      expect(await ask(program, 'answer')).toBe(`answer ${program.pid}`);
    });
  });

  describe('that is loaded by dlmopen', () => {
    it('a second and third time is patched in all copies in one commit, and unloaded from all', async () => {
      const program = await workshop.start('dlmopen', library, library, library);
      const before = readMappings(program.pid);
      expect(await apply(program.pid, [answers(library, 1, 43)], patient)).toMatchObject({
        result: 'applied',
        objects: [{ level: 1 }, { level: 1 }, { level: 1 }],
      });
      expect(await ask(program, 'answer')).toBe('answer 43 43 43');
      expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded', objects: [] });
      expect(await ask(program, 'answer')).toBe('answer 42 42 42');
      expect(readMappings(program.pid)).toEqual(before);
    });
  });

  describe('beside others', () => {
    const many = (): string[] => [1, 2, 3, 4, 5].map((index) => workshop.compileLibrary(`many-${index}.so`));

    it('is patched together with all of them in one commit', async () => {
      const libraries = many();
      const program = await workshop.start('plain', ...libraries);
      const before = readMappings(program.pid);
      const patches = libraries.map((file, index) => answers(file, 1, 50 + index));
      const report = await apply(program.pid, patches, patient);
      expect(report.error?.message).toBeUndefined();
      expect(report.objects.map(({ objectName }) => objectName).sort()).toEqual(
        [1, 2, 3, 4, 5].map((index) => `many-${index}.so`),
      );
      expect(await ask(program, 'answer')).toBe('answer 50 51 52 53 54');
      expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
      expect(readMappings(program.pid)).toEqual(before);
    });

    it('is not patched when one of them holds other code than expected (R2)', async () => {
      const libraries = many();
      const program = await workshop.start('plain', ...libraries);
      const [first, ...others] = libraries.map((file) => handmadePatch(file, 1, { answer: returns(43) }));
      if (!first) throw new Error('No library was compiled.');
      const wrong = {
        ...first,
        hunks: first.hunks.map((hunk) => ({ ...hunk, original: Buffer.from(hunk.original).reverse() })),
      };
      await expectRefused(
        program.pid,
        () => apply(program.pid, [...others, wrong].map(released), patient),
        'BYTES_MISMATCH',
        /answer in many-1\.so/,
      );
      expect(await ask(program, 'answer')).toBe('answer 42 42 42 42 42');
      expect(inspect(program.pid)).toEqual([]);
    });
  });

  describe('that the process unloads after it was patched', () => {
    it('leaves an image that counts as not applied, and that unload removes', async () => {
      const program = await workshop.start('plain');
      await apply(program.pid, [answers(library, 1, 43)], patient);
      expect(await ask(program, 'close')).toBe('close 0');
      const without = readMappings(program.pid);
      expect(inspect(program.pid)).toMatchObject([{ state: 'removed' }]);
      const report = await unload(program.pid, patient);
      expect(report).toMatchObject({ result: 'unloaded', objects: [] });
      expect(inspect(program.pid)).toEqual([]);
      expect(readMappings(program.pid)).toHaveLength(without.length - 1);
    });

    it('and loads again is patched again, and unload leaves no trace', async () => {
      const program = await workshop.start('plain');
      const before = readMappings(program.pid);
      await apply(program.pid, [answers(library, 1, 43)], patient);
      await ask(program, 'close');
      program.writeLine(`load ${library}`);
      expect(await ask(program, 'answer')).toBe('answer 42');
      expect(inspect(program.pid)).toMatchObject([{ state: 'removed' }]);
      expect(await apply(program.pid, [answers(library, 1, 43)], patient)).toMatchObject({
        result: 'applied',
        objects: [{ level: 1 }],
      });
      expect(await ask(program, 'answer')).toBe('answer 43');
      await unload(program.pid, patient);
      expect(await ask(program, 'answer')).toBe('answer 42');
      expect(readMappings(program.pid)).toHaveLength(before.length);
      expect(inspect(program.pid)).toEqual([]);
    });
  });

  describe('that the process changes after it was patched', () => {
    it('by loading it elsewhere is patched there, and the old image is removed', async () => {
      const program = await workshop.start('plain');
      await apply(program.pid, [answers(library, 1, 43)], patient);
      const [code] = codeMappings(program.pid, library);
      if (!code) throw new Error('The program has no library.');
      const start = (code.start - BigInt(code.fileOffset)).toString(16);
      await ask(program, 'close');
      expect(await ask(program, `code ${start} 1000`)).toBe(`code 0x${start}`);
      program.writeLine(`load ${library}`);
      expect(await ask(program, 'answer')).toBe('answer 42');
      expect(await apply(program.pid, [answers(library, 1, 43)], patient)).toMatchObject({
        result: 'applied',
      });
      expect(await ask(program, 'answer')).toBe('answer 43');
      expect(inspect(program.pid)).toMatchObject([{ state: 'active' }]);
      expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
      expect(inspect(program.pid)).toEqual([]);
    });

    it('by giving back its changed pages counts as not patched, and is patched again', async () => {
      const program = await workshop.start('plain');
      const before = readMappings(program.pid);
      await apply(program.pid, [answers(library, 1, 43)], patient);
      const [code] = codeMappings(program.pid, library);
      expect(await ask(program, `forget ${code?.start.toString(16) ?? ''}`)).toBe('forget 0');
      expect(await ask(program, 'answer')).toBe('answer 42');
      expect(inspect(program.pid)).toMatchObject([{ state: 'removed' }]);
      expect(await apply(program.pid, [answers(library, 1, 43)], patient)).toMatchObject({
        result: 'applied',
      });
      expect(await ask(program, 'answer')).toBe('answer 43');
      expect(inspect(program.pid)).toMatchObject([{ state: 'active' }]);
      await unload(program.pid, patient);
      expect(readMappings(program.pid)).toEqual(before);
    });
  });

  describe('that is the program itself', () => {
    it.each([
      ['position independent', ['-pie', '-fPIE']],
      ['linked to fixed addresses', ['-no-pie', '-fno-pie']],
      ['linked statically', ['-static']],
      ['linked statically and position independent', ['-static-pie', '-fPIE']],
    ])('%s, is patched', async (_, flags) => {
      const file = workshop.compileOwn(...flags);
      const program = await workshop.run(file);
      await expectPatchable({ program, library: file });
    });

    it('and gets its heap only later still gets it', async () => {
      const file = workshop.compileOwn('-no-pie', '-fno-pie');
      // Without randomisation the heap begins right behind the program.
      const program = await workshop.run('setarch', '-R', file);
      expect(await ask(program, '', /^answer /)).toBe('answer 42');
      expect(readFileSync(`/proc/${program.pid}/maps`, 'utf8')).not.toContain('[heap]');
      expect(await apply(program.pid, [answers(file, 1, 43)], patient)).toMatchObject({ result: 'applied' });
      expect(await ask(program, '+', /^answer /)).toBe('answer 43');
      expect(readFileSync(`/proc/${program.pid}/maps`, 'utf8')).toContain('[heap]');
      expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
    });

    it('and has no C library is refused: there is nothing to return from a call by', async () => {
      const file = workshop.assemble('bare');
      const program = await workshop.run(file);
      await untilItReads(program.pid);
      await expectRefused(
        program.pid,
        () => apply(program.pid, [answers(file, 1, 43)], patient),
        'TARGET_UNSUPPORTED',
        /signal return trampoline/,
      );
      expect(program.isAlive).toBe(true);
    });

    it('and is a 32-bit program is refused', async () => {
      const program = await workshop.run(workshop.assemble('narrow'));
      await expectRefused(
        program.pid,
        () => apply(program.pid, [answers(library, 1, 43)], patient),
        'TARGET_UNSUPPORTED',
        /32-bit/,
      );
      expect(program.isAlive).toBe(true);
    });
  });

  describe('in a process that', () => {
    it('forks is patched in parent and child, each of which is unloaded on its own', async () => {
      const program = await workshop.start('plain');
      const before = readMappings(program.pid);
      await apply(program.pid, [answers(library, 1, 43)], patient);
      const child = Number((await ask(program, 'fork')).replace('fork ', ''));
      const askChild = (): Promise<string> => {
        process.kill(child, 'SIGUSR1');
        return program.waitForLine(/^child answer/);
      };
      expect(await askChild()).toBe('child answer 43');
      expect(inspect(child)).toMatchObject([{ state: 'active', level: 1 }]);
      expect(await unload(child, patient)).toMatchObject({ result: 'unloaded' });
      expect([await askChild(), await ask(program, 'answer')]).toEqual(['child answer 42', 'answer 43']);
      expect(readMappings(child)).toEqual(before);
      expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
      expect(readMappings(program.pid)).toEqual(before);
    });

    it('executes a program again is as new', async () => {
      const program = await workshop.start('plain');
      await apply(program.pid, [answers(library, 1, 43)], patient);
      program.writeLine('exec');
      await program.waitForLine(/^ready/);
      expect(inspect(program.pid)).toEqual([]);
      await expectPatchable({ program, library });
    });

    it('has executable memory of its own beside the image is unloaded without a trace', async () => {
      const program = await workshop.start('plain');
      const ranges = readMappings(program.pid).map((line) => {
        const [start = '', end = ''] = (line.split(' ')[0] ?? '').split('-');
        return { line, start: parseInt(start, 16), end: parseInt(end, 16) };
      });
      const lowest = ranges.findIndex(({ line }) => line.includes('/libc.so'));
      const loader = ranges.findLast(({ line }) => line.includes('/ld-'));
      if (lowest < 0 || !loader) throw new Error('The process has no C library or no loader.');
      const code = (start: number, size: number): Promise<string> =>
        ask(program, `code ${start.toString(16)} ${size.toString(16)}`);
      // No gap is left between the libraries, and the next one above begins behind code of the target's own.
      for (const [index, { end }] of ranges.entries()) {
        const start = ranges[index + 1]?.start ?? 0;
        if (index >= lowest && end < loader.end && end < start) await code(end, start - end);
      }
      const size = 0x120000;
      expect(await code(loader.end, size)).toBe(`code 0x${loader.end.toString(16)}`);
      const mappings = readMappings(program.pid);
      await expectPatchable({ program, library });
      await apply(program.pid, [answers(library, 1, 43)], patient);
      const [image] = inspect(program.pid);
      expect(Number(image?.address)).toBe(loader.end + size);
      expect(readMappings(program.pid)).toHaveLength(mappings.length);
      await unload(program.pid, patient);
      expect(readMappings(program.pid)).toEqual(mappings);
    });
  });

  describe('of which a function', () => {
    it.each([
      ['is in a recursion', 'recurse', 'call_back', false, /^recursion /],
      ['blocks in a handler on an alternate signal stack', 'handler', 'wait_inside', false, /^handled/],
      ['is on the stack of a thread, and whose file is deleted', 'recurse', 'call_back', true, /^recursion /],
    ])('%s is waited for', async (_, command, function_, deleted, done) => {
      const copy = workshop.copyLibrary('waited.so');
      const program = await workshop.start('plain', copy);
      const before = readMappings(program.pid);
      if (deleted) rmSync(copy);
      program.writeLine(command);
      // The main thread waits for commands, the other one in the function.
      await untilItReads(program.pid, 2);
      const patch = released(handmadePatch(library, 1, { [function_]: returns(9) }));
      const report = await apply(program.pid, [patch], now);
      expect(report.result).toBe('busy');
      expect(report.error?.details).toMatchObject({ function: function_ });
      expect(inspect(program.pid)).toEqual([]);
      const waiting = apply(program.pid, [patch], patient);
      setTimeout(() => program.writeLine('open'), 50);
      expect(await waiting).toMatchObject({ result: 'applied' });
      await program.waitForLine(done);
      expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
      expect(readMappings(program.pid).length).toBeGreaterThanOrEqual(before.length);
    });
  });
});
