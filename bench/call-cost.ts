// What a call of a patched function costs, against the same call before and after: one jump more.
import { fixtureProgram } from '../fixtures/support/openssl.js';
import { handmadePatch, released, returns } from '../fixtures/support/handmade.js';
import { Program } from '../fixtures/support/program.js';
import { apply, unload } from '../src/engine/index.js';
import { median } from './summary.js';

export interface CallCost {
  readonly repetitions: number;
  /** Medians, nanoseconds. */
  readonly originalNs: number;
  readonly patchedNs: number;
}

const repetitions = 9;
const options = { waitMs: 5000, dryRun: false };

async function time(program: Program): Promise<number> {
  program.writeLine('time');
  return Number((await program.waitForLine(/^ns=/)).slice('ns='.length));
}

/** Patched and unpatched calls in turn, in one process. Throws when the process was not patched. */
export async function measureCallCost(): Promise<CallCost> {
  const file = fixtureProgram('bench/calls');
  const patch = released(handmadePatch(file, 1, { answer: returns(42) }));
  const program = await Program.start(file);
  try {
    await program.waitForLine(/^ready$/);
    const original: number[] = [];
    const patched: number[] = [];
    for (let repetition = 0; repetition < repetitions; repetition++) {
      original.push(await time(program));
      const { error } = await apply(program.pid, [patch], options);
      if (error) throw error;
      patched.push(await time(program));
      await unload(program.pid, options);
    }
    return { repetitions, originalNs: median(original), patchedNs: median(patched) };
  } finally {
    await program.end();
  }
}

export function formatCallCost({ originalNs, patchedNs }: CallCost): string {
  const ratio = (patchedNs / originalNs).toFixed(2);
  return `call of an empty function, ns: ${originalNs.toFixed(2)} original, ${patchedNs.toFixed(2)} patched (×${ratio})`;
}
