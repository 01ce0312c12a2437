// Runs clang-tidy with .clang-tidy over the C++ sources of addon/; every warning is an error.
//
// A source whose last run was clean is skipped until it, a header or the checks change.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { compilerOptions } from './build-addon.mjs';

const root = path.dirname(import.meta.dirname);
const sourceDirectory = path.join(root, 'addon');
const stampDirectory = path.join(root, '.cache', 'clang-tidy');
const jobs = 2;

const names = fs.readdirSync(sourceDirectory).sort();
const shared = createHash('sha256');
for (const file of ['.clang-tidy', 'package-lock.json', 'scripts/build-addon.mjs']) {
  shared.update(fs.readFileSync(path.join(root, file)));
}
for (const header of names.filter((name) => name.endsWith('.h'))) {
  shared.update(fs.readFileSync(path.join(sourceDirectory, header)));
}
const sharedDigest = shared.digest();

function fingerprint(source) {
  return createHash('sha256').update(sharedDigest).update(fs.readFileSync(source)).digest('hex');
}

function check(source) {
  const stamp = path.join(stampDirectory, path.basename(source));
  const current = fingerprint(source);
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === current) return Promise.resolve(true);
  return new Promise((resolve) => {
    const child = spawn('clang-tidy', ['--quiet', source, '--', ...compilerOptions], {
      cwd: root,
      stdio: ['ignore', 'inherit', 'pipe'],
    });
    let messages = '';
    child.stderr.on('data', (data) => (messages += data));
    child.on('error', (error) => {
      process.stderr.write(`clang-tidy: ${error.message}; install the Debian package clang-tidy\n`);
      resolve(false);
    });
    child.on('close', (status) => {
      if (status === 0) fs.writeFileSync(stamp, current);
      else process.stderr.write(messages);
      resolve(status === 0);
    });
  });
}

fs.mkdirSync(stampDirectory, { recursive: true });
const waiting = names.filter((name) => name.endsWith('.cc')).map((name) => path.join(sourceDirectory, name));
let clean = true;
const worker = async () => {
  for (let source = waiting.pop(); source; source = waiting.pop()) clean = (await check(source)) && clean;
};
await Promise.all(Array.from({ length: jobs }, worker));
process.exitCode = clean ? 0 : 1;
