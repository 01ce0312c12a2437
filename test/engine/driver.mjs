// Runs one engine action in a process of its own, so that a test can kill it: driver.mjs apply|unload PID PATCH INTENTS.
import { readFileSync } from 'node:fs';
import { apply, unload } from '../../dist/src/engine/index.js';
import { readPatch } from '../../dist/src/patchfile/index.js';

const [, , action, pid, file, intentDirectory] = process.argv;
const options = { waitMs: 5000, dryRun: false, intentDirectory };
const report =
  action === 'apply'
    ? await apply(
        Number(pid),
        [{ patch: readPatch(readFileSync(file)), patchset: 'U20261122_01', sha256: '11'.repeat(32) }],
        options,
      )
    : await unload(Number(pid), options);
console.log(report.result, report.error?.message ?? '');
