// Applies a patch and takes it out again, many times, in a process of its own, which others of its kind work against:
// rival.mjs PID PATCH ROUNDS [INTENTS]; prints how often each result came.
import { readFileSync } from 'node:fs';
import { apply, unload } from '../../dist/src/engine/index.js';
import { readPatch } from '../../dist/src/patchfile/index.js';

const [pid, file, rounds, intentDirectory] = process.argv.slice(2);
const level = { patch: readPatch(readFileSync(file)), patchset: 'U20261122_01', sha256: '11'.repeat(32) };
const options = { waitMs: 60_000, dryRun: false, ...(intentDirectory && { intentDirectory }) };
const tally = {};
const count = ({ result, error }) => {
  const key = error ? `${result}: ${error.message}` : result;
  tally[key] = (tally[key] ?? 0) + 1;
};
for (let round = 0; round < Number(rounds); round++) {
  count(await apply(Number(pid), [level], options));
  count(await unload(Number(pid), options));
}
console.log(JSON.stringify(tally));
