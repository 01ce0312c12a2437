// Memory that vanishes under a run: another look, and never an unmapping of what is not an image any more.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { compileTarget, handmadePatch, released, returns } from '../../fixtures/support/handmade.js';
import { readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { KcareError } from '../../src/base/errors.js';
import { apply, unload } from '../../src/engine/index.js';
import { Pauses } from '../../src/engine/pauses.js';
import { unmapImage } from '../../src/engine/remote.js';
import { IntentJournal } from '../../src/engine/intents.js';
import { withFreshLooks } from '../../src/engine/retry.js';
import { withTarget } from '../../src/engine/target.js';

const options = { waitMs: 5000, dryRun: false };
const directory = mkdtempSync(join(tmpdir(), 'kcare-retry-'));
afterAll(() => rmSync(directory, { recursive: true }));

/** Fails as often as told with this error, then gives the number of attempts. */
function failing(times: number, error: Error): { attempts: number; run: () => Promise<number> } {
  const state = {
    attempts: 0,
    run: () => (++state.attempts <= times ? Promise.reject(error) : Promise.resolve(state.attempts)),
  };
  return state;
}

describe('memory that vanished since it was looked at', () => {
  const vanished = new KcareError('TARGET_MEMORY', 'it is gone');

  it('is looked at again, and not for ever', async () => {
    await expect(withFreshLooks(failing(2, vanished).run)).resolves.toBe(3);
    const endless = failing(Infinity, vanished);
    await expect(withFreshLooks(endless.run)).rejects.toBe(vanished);
    expect(endless.attempts).toBe(3);
  });

  it('does not make a run forget what it has done', async () => {
    let attempts = 0;
    const attempt = (settle: (result: string) => void): Promise<string> => {
      if (++attempts > 1) return Promise.resolve('unchanged');
      settle('applied');
      return Promise.reject(vanished);
    };
    await expect(withFreshLooks(attempt)).resolves.toBe('applied');
    expect(attempts).toBe(2);
  });

  it('is the only reason to look again', async () => {
    for (const error of [new KcareError('BYTES_MISMATCH', 'no'), new Error('no')]) {
      const once = failing(1, error);
      await expect(withFreshLooks(once.run)).rejects.toBe(error);
      expect(once.attempts).toBe(1);
    }
  });

  it('is not unmapped when something else is in its place', async () => {
    const { program, library } = compileTarget(join(directory, 'target'));
    const target = await Program.start(program);
    try {
      await target.waitForLine(/^ready/);
      const patch = released(handmadePatch(library, 1, { answer: returns(43) }));
      expect((await apply(target.pid, [patch], options)).result).toBe('applied');
      const before = readMappings(target.pid);
      await withTarget(target.pid, await IntentJournal.open(), (view) => {
        const [image] = view.images;
        const other = view.objects.find(({ path }) => path === library);
        if (!image || !other) throw new Error('The image or the library was not found.');
        unmapImage(view, { ...image, address: other.start }, new Pauses());
      });
      expect(readMappings(target.pid)).toEqual(before);
      expect((await unload(target.pid, options)).result).toBe('unloaded');
    } finally {
      await target.end();
    }
  });
});
