// Processes that rewrite the tables of their objects in memory: the patcher stays within its memory and time, and its others are patched.
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { handmadePatch, returns, type Extras } from '../../fixtures/support/handmade.js';
import type { Program } from '../../fixtures/support/program.js';
import { apply } from '../../src/engine/index.js';
import { writePatch, type Patch } from '../../src/patchfile/index.js';
import { mappedObjects } from '../../src/proc/index.js';
import { answers, ask, patient, untilItReads, Workshop } from './conditions.js';

/** Of the patcher, bytes that it may have in private writable memory, and seconds of processor time. */
const limits = ['--data=200000000', '--cpu=120'];
const heapMegabytes = 64;

interface Line {
  readonly pid: number;
  readonly result: string;
  readonly code?: string;
  readonly message?: string;
}

describe('a process whose tables', () => {
  let workshop: Workshop;
  let tables: string;
  let rewritten: string;
  /** Take nothing of other objects, a symbol that only rewritten tables have, and one of the C library. */
  let patches: { readonly own: string; readonly spoken: string; readonly getpid: string };

  beforeAll(() => {
    workshop = new Workshop();
    tables = workshop.compileOf(['tables.c'], '-pthread');
    rewritten = workshop.compileLibrary('librewritten.so', 'words.c');
    const taking = (name: string, version: string): string => {
      const symbols: Extras['symbols'] = [{ name, where: 'foreign', version }];
      return keep(handmadePatch(workshop.library, 2, { answer: returns(44) }, { symbols }));
    };
    patches = {
      own: keep(answers(workshop.library, 1, 43).patch),
      spoken: taking('spoken', 'WANTED_1'),
      getpid: taking('getpid', 'GLIBC_2.2.5'),
    };
    mkdirSync(join(workshop.directory, 'intents'), { mode: 0o700 });
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  /** Its file, named by its hash. */
  function keep(patch: Patch): string {
    const bytes = writePatch(patch);
    const path = join(workshop.directory, createHash('sha256').update(bytes).digest('hex'));
    writeFileSync(path, bytes);
    return path;
  }

  async function start(way: string, ...libraries: readonly string[]): Promise<Program> {
    const program = await workshop.run(tables, way, workshop.library, ...libraries);
    await program.waitForLine(/^ready/);
    return program;
  }

  /** What a patcher says that is killed when it takes more memory or time than the work needs. */
  async function patchWithinLimits(
    files: readonly string[],
    ...programs: readonly Program[]
  ): Promise<Line[]> {
    const driver = join(import.meta.dirname, 'bounded-driver.mjs');
    const { stdout } = await promisify(execFile)('prlimit', [
      ...limits,
      process.execPath,
      `--max-old-space-size=${heapMegabytes}`,
      driver,
      join(workshop.directory, 'intents'),
      files.join(','),
      ...programs.map(({ pid }) => String(pid)),
    ]);
    return stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Line);
  }

  const unresolved = ['refused SYMBOL_UNRESOLVED'];
  const endless = ['refused TARGET_UNSUPPORTED'];
  const nowhere = ['failed TARGET_MEMORY'];
  it.each([
    ['claim a symbol table of a gigabyte', 'symbols', ['applied'], unresolved],
    ['have no buckets', 'no-buckets', ['applied'], unresolved],
    ['have 4,294,967,295 buckets', 'most-buckets', ['applied', ...nowhere], [...unresolved, ...nowhere]],
    ['have chains and versions without end', 'chains', ['applied'], endless],
    ['have millions of slots for a version that never comes', 'slots', ['applied'], endless],
    ['have strings without end', 'strings', ['applied'], unresolved],
    ['lead to unmapped memory', 'nowhere', nowhere, nowhere],
    ['lead to themselves', 'itself', ['applied', ...nowhere], [...unresolved, ...nowhere]],
  ])('%s is patched or refused within limits, as is the next', async (_, way, own, spoken) => {
    const hostile = await start(way, rewritten);
    const ordinary = await start('plain', rewritten);
    const lines = await patchWithinLimits([patches.own, patches.spoken], hostile, ordinary);
    const said = lines.map(({ result, code = '' }) => `${result} ${code}`.trim());
    expect(own, lines[0]?.message).toContain(said[0]);
    expect(spoken, lines[1]?.message).toContain(said[1]);
    expect(said.slice(2)).toEqual(['applied', 'refused SYMBOL_UNRESOLVED']);
    expect(await ask(hostile, 'answer')).toBe(`answer ${said[0] === 'applied' ? 43 : 42}`);
    expect(await ask(ordinary, 'answer')).toBe('answer 43');
  });

  it('are listed by the loader in a circle is patched', async () => {
    const hostile = await start('circle', rewritten);
    const lines = await patchWithinLimits([patches.own, patches.getpid], hostile);
    expect(lines).toMatchObject([{ result: 'applied' }, { result: 'upgraded' }]);
    expect(await ask(hostile, 'answer')).toBe('answer 44');
  });

  it('claim 16 million unwind entries waits, in bounded memory, and the next is patched', async () => {
    const hostile = await start('frames');
    const ordinary = await start('plain');
    await ask(hostile, 'wait');
    await untilItReads(hostile.pid, 2);
    const patch = handmadePatch(workshop.library, 1, { answer: returns(43), wait_inside: returns(1) });
    const lines = await patchWithinLimits([keep(patch)], hostile, ordinary);
    expect(lines).toMatchObject([{ result: 'busy', code: 'TARGET_BUSY' }, { result: 'applied' }]);
    expect(await ask(hostile, 'answer')).toBe('answer 42');
  });

  it('change the build-id all the time is patched or refused, and lives', async () => {
    const hostile = await start('identity');
    const results = new Set<string>();
    for (let round = 0; round < 40; round++) {
      const { result, error } = await apply(hostile.pid, [answers(workshop.library, 1, 43)], patient);
      results.add(`${result} ${error?.code ?? ''}`.trim());
    }
    const expected = ['applied', 'unchanged', 'refused BUILD_ID_MISMATCH', 'refused HEADER_MALFORMED'];
    expect([...results].filter((result) => !expected.includes(result))).toEqual([]);
    expect(results.size).toBeGreaterThan(1);
    expect(await ask(hostile, 'answer')).toMatch(/^answer 4[23]$/);
  });

  it('claim the build-ids of the loader and the C library keeps no other from being patched', async () => {
    const ordinary = await start('plain');
    const objects = mappedObjects(ordinary.pid);
    // Too large for a gap above the C library, so that they lie below it and are looked at first.
    const impostors = ['ld-', 'libc.so'].map((name) => {
      const { buildId = '' } = objects.find((object) => object.name.startsWith(name)) ?? {};
      expect(buildId).not.toBe('');
      const output = join(workshop.directory, `${name}impostor`);
      const source = join(workshop.directory, 'impostor.s');
      writeFileSync(
        source,
        '.text\n.skip 77\nmov $15, %rax\nsyscall\n.bss\n.skip 0x4000000\n.section .note.GNU-stack,"",@progbits\n',
      );
      execFileSync('cc', ['-shared', '-nostdlib', `-Wl,--build-id=0x${buildId}`, '-o', output, source]);
      return output;
    });
    const first = await start('plain', ...impostors.slice(0, 1));
    // With both, the second would not be looked at.
    const second = await start('plain', ...impostors.slice(1));
    const lines = await patchWithinLimits([patches.own], first, second, ordinary);
    expect(lines.map(({ result, message = '' }) => `${result} ${message}`.trim())).toEqual([
      'applied',
      'applied',
      'applied',
    ]);
    expect(await ask(ordinary, 'answer')).toBe('answer 43');
  });
});
