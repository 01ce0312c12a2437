// The engine on real multi-threaded processes: apply, upgrade, unload, and everything that must be refused.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { untilThreadWaits } from '../../fixtures/support/threads.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import {
  compileTarget,
  handmadePatch,
  released,
  returns,
  type Compiled,
} from '../../fixtures/support/handmade.js';

const now = { waitMs: 0, dryRun: false };
const patient = { waitMs: 5000, dryRun: false };

describe('engine', () => {
  let directory: string;
  let compiled: Compiled;
  const running: Program[] = [];

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'kcare-engine-'));
    compiled = compileTarget(directory);
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((program) => program.end()));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  async function start(workers = 0): Promise<Program> {
    const program = await Program.start(compiled.program, [String(workers)]);
    running.push(program);
    await program.waitForLine(/^ready/);
    return program;
  }

  async function ask(program: Program, question: string): Promise<string> {
    program.writeLine(question);
    return program.waitForLine(new RegExp(question === 'seen' ? 'seen$' : `^${question} `));
  }

  const answers = (level: number, value: number) =>
    released(handmadePatch(compiled.library, level, { answer: returns(value) }));

  it('applies, tells, changes nothing the second time, and unloads without a trace (R7)', async () => {
    const program = await start(3);
    const before = readMappings(program.pid);
    expect(await ask(program, 'answer')).toBe('answer 42');
    expect(await apply(program.pid, [answers(1, 43)], patient)).toMatchObject({
      result: 'applied',
      objects: [{ objectName: 'libanswers.so', level: 1 }],
    });
    expect(await ask(program, 'answer')).toBe('answer 43');
    expect(inspect(program.pid)).toMatchObject([
      {
        state: 'active',
        level: 1,
        patchset: 'U20261122_01',
        cves: [{ id: 'CVE-2026-0001' }],
        hunks: [{ name: 'answer' }],
      },
    ]);
    expect(countChangedCodeBytes(program.pid, compiled.library)).toBeGreaterThan(0);
    expect(await apply(program.pid, [answers(1, 43)], patient)).toMatchObject({ result: 'unchanged' });
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded', objects: [] });
    expect(await ask(program, 'answer')).toBe('answer 42');
    expect(countChangedCodeBytes(program.pid, compiled.library)).toBe(0);
    expect(readMappings(program.pid)).toEqual(before);
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unchanged' });
  });

  it('moves between levels in one commit: under load no call ever reaches the original code', async () => {
    const program = await start(4);
    await apply(program.pid, [answers(1, 43)], patient);
    await ask(program, 'seen');
    const mappings = readMappings(program.pid).length;
    for (let round = 0; round < 50; round++) {
      const [level, value] = round % 2 === 0 ? [2, 44] : [1, 43];
      expect(await apply(program.pid, [answers(level, value)], patient)).toMatchObject({
        result: 'upgraded',
      });
      expect(await ask(program, 'answer')).toBe(`answer ${value}`);
    }
    expect(await ask(program, 'seen')).toBe('43 44 seen');
    expect(readMappings(program.pid)).toHaveLength(mappings);
    expect(inspect(program.pid)).toHaveLength(1);
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
  });

  it('restores a function that the next level no longer replaces', async () => {
    const program = await start();
    const both = handmadePatch(compiled.library, 1, { answer: returns(43), call_back: returns(9) });
    await apply(program.pid, [released(both)], patient);
    expect([await ask(program, 'answer'), await ask(program, 'call')]).toEqual(['answer 43', 'call 9']);
    await apply(program.pid, [answers(2, 44)], patient);
    expect([await ask(program, 'answer'), await ask(program, 'call')]).toEqual(['answer 44', 'call 11']);
  });

  it('names function and thread while a thread is inside, changes nothing, and succeeds once it left', async () => {
    const program = await start(1);
    program.writeLine('block');
    const patch = released(handmadePatch(compiled.library, 1, { wait_inside: returns(7) }));
    await untilThreadWaits(program.pid);
    const report = await apply(program.pid, [patch], { waitMs: 200, dryRun: false });
    expect(inspect(program.pid)).toEqual([]);
    expect(report.error?.details).toMatchObject({ function: 'wait_inside' });
    expect(report.error?.details['tid']).not.toBe(program.pid);
    expect(JSON.stringify(report.error?.details['backtrace'])).toContain('libanswers.so+0x');
    expect(countChangedCodeBytes(program.pid, compiled.library)).toBe(0);
    const waiting = apply(program.pid, [patch], patient);
    setTimeout(() => program.writeLine('open'), 100);
    expect(await waiting).toMatchObject({ result: 'applied' });
    await program.waitForLine(/^inside 1/);
  });

  it('tells a stale return address from a live frame by unwinding', async () => {
    const program = await start();
    program.writeLine('trace');
    await program.waitForLine(/^sleeping/);
    const patch = handmadePatch(compiled.library, 1, { call_back: returns(9) });
    expect(await apply(program.pid, [released(patch)], patient)).toMatchObject({ result: 'applied' });
    expect(await ask(program, 'call')).toBe('call 9');
    program.writeLine('open');
    await program.waitForLine(/^woken 1 1/);
  });

  it('keeps data apart from code and never maps anything writable and executable (R9)', async () => {
    const program = await start();
    const patch = handmadePatch(
      compiled.library,
      1,
      {
        // incl counter(%rip); mov counter(%rip),%eax; ret
        count_calls: {
          code: 'ff05000000008b0500000000c3',
          relocations: [
            { offset: 2, type: 2, symbol: 'counter', addend: -4 },
            { offset: 8, type: 2, symbol: 'counter', addend: -4 },
          ],
        },
      },
      {
        sections: [{ name: '.data', bytes: Buffer.from([100, 0, 0, 0]), size: 4, alignment: 4 }],
        symbols: [
          { name: 'counter', where: 'patch', section: '.data', value: 0, size: 4, isFunction: false },
        ],
      },
    );
    await ask(program, 'count');
    await apply(program.pid, [released(patch)], patient);
    expect(await ask(program, 'count')).toBe('count 101');
    expect(await ask(program, 'count')).toBe('count 102');
    expect(readMappings(program.pid).filter((line) => line.includes('rwx'))).toEqual([]);
    await unload(program.pid, patient);
    expect(await ask(program, 'count')).toBe('count 2');
  });

  it('calls functions of other objects through the process’s own symbols', async () => {
    const program = await start();
    const patch = handmadePatch(
      compiled.library,
      1,
      // jmp *slot(%rip)
      {
        count_calls: {
          code: 'ff2500000000',
          relocations: [{ offset: 2, type: 2, symbol: 'slot', addend: -4 }],
        },
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
    expect(await apply(program.pid, [released(patch)], patient)).toMatchObject({ result: 'applied' });
    expect(await ask(program, 'count')).toBe(`count ${program.pid}`);
  });

  describe('refuses and writes nothing', () => {
    const patchOf = () => handmadePatch(compiled.library, 1, { answer: returns(43) });
    const cases: [string, string, () => ReturnType<typeof handmadePatch>][] = [
      ['a patch for another build', 'BUILD_ID_MISMATCH', () => ({ ...patchOf(), buildId: '00'.repeat(20) })],
      [
        'a patch whose original bytes are others (R3)',
        'BYTES_MISMATCH',
        () => ({
          ...patchOf(),
          hunks: patchOf().hunks.map((hunk) => ({ ...hunk, original: Buffer.from(hunk.original).reverse() })),
        }),
      ],
      [
        'a patch that needs a symbol the process lacks',
        'SYMBOL_UNRESOLVED',
        () =>
          handmadePatch(
            compiled.library,
            1,
            { answer: returns(43) },
            { symbols: [{ name: 'no_such_symbol', where: 'foreign', version: '' }] },
          ),
      ],
    ];
    it.each(cases)('%s', async (_, code, make) => {
      const program = await start(2);
      const before = readMappings(program.pid);
      const report = await apply(program.pid, [released(make())], patient);
      expect(report.result).toBe('refused');
      expect(report.error?.code).toBe(code);
      expect(readMappings(program.pid)).toEqual(before);
      expect(countChangedCodeBytes(program.pid, compiled.library)).toBe(0);
      expect(await ask(program, 'answer')).toBe('answer 42');
    });
  });

  it('tells with a dry run what would happen, and does nothing', async () => {
    const program = await start();
    const before = readMappings(program.pid);
    expect(await apply(program.pid, [answers(1, 43)], { ...patient, dryRun: true })).toMatchObject({
      result: 'would-apply',
    });
    expect(readMappings(program.pid)).toEqual(before);
    await apply(program.pid, [answers(1, 43)], patient);
    expect(await apply(program.pid, [answers(2, 44)], { ...patient, dryRun: true })).toMatchObject({
      result: 'would-upgrade',
    });
    expect(await unload(program.pid, { ...patient, dryRun: true })).toMatchObject({ result: 'would-unload' });
    expect(await ask(program, 'answer')).toBe('answer 43');
  });

  it('reports a process that ended as gone (R11)', async () => {
    const program = await start();
    await program.end();
    expect(await apply(program.pid, [answers(1, 43)], now)).toMatchObject({ result: 'gone' });
  });
});
