// Patches processes one after another, each by every patch, in a process of its own whose memory and time are limited:
// bounded-driver.mjs INTENTS PATCH,... PID...; prints one report a line.
import { readFileSync } from 'node:fs';
import { apply } from '../../dist/src/engine/index.js';
import { readPatch } from '../../dist/src/patchfile/index.js';

const [, , intentDirectory, patches, ...pids] = process.argv;
for (const pid of pids) {
  for (const file of patches.split(',')) {
    const level = { patch: readPatch(readFileSync(file)), patchset: 'U20261122_01', sha256: file.slice(-64) };
    const { result, error } = await apply(Number(pid), [level], {
      waitMs: 500,
      dryRun: false,
      intentDirectory,
    });
    console.log(JSON.stringify({ pid: Number(pid), result, code: error?.code, message: error?.message }));
  }
}
