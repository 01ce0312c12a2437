// Where this kcare is installed: the directory of its own package.json.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KcareError } from './errors.js';

let known: string | undefined;

/** The directory with kcare's own package.json, from the sources as well as from dist/. */
export function packageRoot(): string {
  known ??= search(import.meta.dirname);
  return known;
}

function search(start: string): string {
  let directory = start;
  for (;;) {
    const file = join(directory, 'package.json');
    if (existsSync(file) && readFileSync(file, 'utf8').includes('"name": "kcare"')) return directory;
    const parent = dirname(directory);
    if (parent === directory) throw new KcareError('INTERNAL', 'The package.json of kcare was not found.');
    directory = parent;
  }
}
