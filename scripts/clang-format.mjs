// Formats the C and C++ sources of addon/, fixtures/ and src/, or checks that they are formatted.
//
//   node scripts/clang-format.mjs --check | --write
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const root = path.dirname(import.meta.dirname);
const directories = ['addon', 'fixtures', 'kmod', 'src'];

/** C and C++ files below a directory that may be missing. */
function sources(directory) {
  const absolute = path.join(root, directory);
  if (!fs.existsSync(absolute)) return [];
  return fs
    .readdirSync(absolute, { recursive: true })
    .filter((name) => /\.(c|h|cc)$/.test(name))
    .map((name) => path.join(directory, name));
}

const mode = { '--check': ['--dry-run', '--Werror'], '--write': ['-i'] }[process.argv[2]];
if (!mode) {
  process.stderr.write('usage: clang-format.mjs --check | --write\n');
  process.exit(64);
}
const files = directories.flatMap(sources);
const { status, error } = spawnSync('clang-format', [...mode, '--style=file', ...files], {
  cwd: root,
  stdio: 'inherit',
});
if (error) process.stderr.write(`clang-format: ${error.message}; install the Debian package clang-format\n`);
process.exitCode = status ?? 1;
