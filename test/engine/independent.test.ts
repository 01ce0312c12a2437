// Functions that a patch declares independent: threads inside the old code finish there, and new calls get the new code.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  compileTarget,
  handmadePatch,
  released,
  returns,
  type Compiled,
} from '../../fixtures/support/handmade.js';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';
import { apply, unload, type PatchToApply } from '../../src/engine/index.js';
import { readPatch, writePatch } from '../../src/patchfile/index.js';

const now = { waitMs: 0, dryRun: false };
const patient = { waitMs: 5000, dryRun: false };

function patchOf(object: string, name: string, independent: boolean): PatchToApply {
  const patch = handmadePatch(object, 1, { [name]: returns(7) });
  const hunks = patch.hunks.map((hunk) => ({ ...hunk, ...(independent && { independent }) }));
  return released(readPatch(writePatch({ ...patch, hunks })));
}

describe('an independent function', () => {
  let directory: string;
  let compiled: Compiled;
  let program: Program | undefined;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'kcare-independent-'));
    compiled = compileTarget(directory);
  });
  afterEach(() => program?.end());
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  /** The thread needs a moment to get there; an apply before that is undone. */
  async function waitUntilBusy(pid: number, patch: PatchToApply): Promise<void> {
    for (;;) {
      const { result } = await apply(pid, [patch], now);
      if (result === 'busy') return;
      expect(result).toBe('applied');
      await unload(pid, patient);
    }
  }

  it('is patched while a thread sits in the old code, which finishes there', async () => {
    program = await Program.start(compiled.program, ['0']);
    await program.waitForLine(/^ready/);
    program.writeLine('block');
    await waitUntilBusy(program.pid, patchOf(compiled.library, 'wait_inside', false));
    const before = readMappings(program.pid);
    expect(await apply(program.pid, [patchOf(compiled.library, 'wait_inside', true)], now)).toMatchObject({
      result: 'applied',
    });
    program.writeLine('block');
    expect(await program.waitForLine(/^inside/)).toBe('inside 7');
    program.writeLine('open');
    expect(await program.waitForLine(/^inside 1/)).toBe('inside 1');
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded' });
    expect(countChangedCodeBytes(program.pid, compiled.library)).toBe(0);
    expect(readMappings(program.pid).filter((line) => line.includes('libanswers'))).toEqual(
      before.filter((line) => line.includes('libanswers')),
    );
  });

  it('waits for a thread that stands in the bytes of the jump', async () => {
    const file = join(directory, 'early');
    const source = join(packageRoot(), 'fixtures', 'engine', 'early.c');
    execFileSync('cc', ['-O2', '-Wall', '-Werror', '-pthread', '-Wl,--build-id', '-o', file, source]);
    program = await Program.start(file, []);
    await program.waitForLine(/^ready/);
    const patch = patchOf(file, 'wait_early', true);
    await waitUntilBusy(program.pid, patch);
    expect(countChangedCodeBytes(program.pid, file)).toBe(0);
    program.writeLine('open');
    expect(await program.waitForLine(/^early/)).toBe('early 1');
    expect(await apply(program.pid, [patch], patient)).toMatchObject({ result: 'applied' });
  });
});
