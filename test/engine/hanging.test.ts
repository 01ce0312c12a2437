// A thread in a file system that never answers: it cannot be stopped, so its process waits, unharmed.
import { execFileSync } from 'node:child_process';
import { accessSync, closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import { apply } from '../../src/engine/index.js';
import { answers, ask, now, patient, Workshop } from './conditions.js';

function hasFuse(): boolean {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    closeSync(openSync('/dev/fuse', 'r+'));
    return true;
  } catch {
    return false;
  }
}

describe('a thread that reads from a file system that hangs', () => {
  let workshop: Workshop;
  let hanging: string;
  let directory: string;

  beforeAll(() => {
    workshop = new Workshop();
    hanging = workshop.compileOf(['hanging.c'], '-pthread');
    directory = join(workshop.directory, 'mounted');
    mkdirSync(directory);
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  it('keeps its process from being patched until the file system ends', async (context) => {
    context.skip(!hasFuse(), '/dev/fuse cannot be opened: nothing was tried with a hanging file system');
    const program = await workshop.run(hanging, directory, workshop.library);
    const reader = (await program.waitForLine(/^reader/)).split(' ')[1] ?? '';
    await expect
      .poll(() => execFileSync('cat', [`/proc/${program.pid}/task/${reader}/wchan`], { encoding: 'utf8' }))
      .toBe('request_wait_answer');
    const before = readMappings(program.pid);
    const patch = answers(workshop.library, 1, 43);
    for (let round = 0; round < 2; round++) {
      const { result, error } = await apply(program.pid, [patch], now);
      expect({ result, code: error?.code }).toEqual({ result: 'busy', code: 'TARGET_BUSY' });
      expect(error?.message).toMatch(new RegExp(`thread ${reader} .*in state D`));
      expect(await ask(program, 'answer')).toBe('answer 42');
      expect(readMappings(program.pid)).toEqual(before);
    }
    expect(await ask(program, 'release')).toBe('release done');
    const report = await apply(program.pid, [patch], patient);
    expect(report.error?.message).toBeUndefined();
    expect(report.result).toBe('applied');
    expect(await ask(program, 'answer')).toBe('answer 43');
  });
});
