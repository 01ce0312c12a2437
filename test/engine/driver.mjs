// Runs one engine action in a process of its own, so that a test can kill it: driver.mjs apply|unload PID PATCH INTENTS;
// driver.mjs --wait reads these words, as JSON, when it is ready to work.
import { readFileSync } from 'node:fs';
import { json } from 'node:stream/consumers';
import { nativeModule } from '../../dist/src/addon/native.js';
import { apply, unload } from '../../dist/src/engine/index.js';
import { readPatch } from '../../dist/src/patchfile/index.js';

nativeModule();
const words = process.argv.slice(2);
const [action, pid, file, intentDirectory] = words[0] === '--wait' ? await json(process.stdin) : words;
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
