// Builds the engine's sources with AddressSanitizer and UndefinedBehaviorSanitizer and runs fixtures/addon/sanitize.cc.
//
//   node scripts/sanitize.mjs [SEED]
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { compiler, compilerOptions, guardianSource, isCurrent } from './build-addon.mjs';

const root = path.dirname(import.meta.dirname);
const sourceDirectory = path.join(root, 'addon');
const outputDirectory = path.join(root, 'build', 'sanitize');
const rounds = 100;
const longestRunMs = 120_000;
const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer'];
// Fortified functions hide from AddressSanitizer what they do.
const options = compilerOptions.map((option) => (option === '-D_FORTIFY_SOURCE=2' ? '-O1' : option));

function run(command, parameters, more = {}) {
  const { status, signal, error } = spawnSync(command, parameters, { stdio: 'inherit', ...more });
  if (status === 0) return;
  process.stderr.write(
    `sanitize: ${path.basename(command)}: ${error?.message ?? signal ?? `status ${status}`}\n`,
  );
  process.exit(1);
}

// The bindings need Node.js around them, and the guardian is a program of its own.
const sources = fs
  .readdirSync(sourceDirectory)
  .filter((name) => name.endsWith('.cc') && !name.endsWith('binding.cc') && name !== guardianSource)
  .map((name) => path.join(sourceDirectory, name));
sources.push(path.join(root, 'fixtures', 'addon', 'sanitize.cc'));
fs.mkdirSync(outputDirectory, { recursive: true });
const objects = sources.map((source) => {
  const object = path.join(outputDirectory, path.basename(source).replace(/\.cc$/, '.o'));
  if (!isCurrent(source, object))
    run(compiler, [...options, ...sanitizers, '-I', sourceDirectory, '-MMD', '-c', source, '-o', object]);
  return object;
});
const program = path.join(outputDirectory, 'sanitize');
run(compiler, [...sanitizers, '-pthread', ...objects, '-o', program]);
const seed = process.argv[2] ?? '1';
process.stdout.write(`sanitize: seed ${seed}, ${rounds} rounds\n`);
run(program, [seed, String(rounds)], { timeout: longestRunMs, killSignal: 'SIGKILL' });
