// One patcher that is going to be killed: waits, warm, for one action, carries it out and says how it went.
import { readFileSync } from 'node:fs';
import { nativeModule } from '../src/addon/native.js';
import { apply, unload } from '../src/engine/index.js';
import { released } from '../fixtures/support/handmade.js';
import { readPatch } from '../src/patchfile/index.js';

/** What a patcher is told to do: bring `pid` to the patch in `file`, or unload without one. */
export interface PatcherAction {
  readonly pid: number;
  readonly file?: string;
}

const options = { waitMs: 5000, dryRun: false };

async function carryOut({ pid, file }: PatcherAction): Promise<void> {
  const report =
    file === undefined
      ? await unload(pid, options)
      : await apply(pid, [released(readPatch(readFileSync(file)))], options);
  process.send?.(`${report.result} ${report.error?.message ?? ''}`, () => process.exit(0));
}

if (process.send) {
  nativeModule();
  process.once('message', (action: PatcherAction) => void carryOut(action));
  process.once('disconnect', () => process.exit(0));
  process.send('ready');
}
