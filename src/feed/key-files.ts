// The files of the directory of imported OpenPGP keys, as bytes.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readSafeFile, safeDirectory } from '../base/safe-files.js';
import type { KeyFile } from './verdict.js';

export const keyFileSuffix = '.asc';

/** Sorted by name. Throws UNSAFE_MODE (R10). */
export async function readKeyFiles(keyDirectory: string): Promise<KeyFile[]> {
  const directory = await safeDirectory(keyDirectory);
  const files: KeyFile[] = [];
  for (const name of (await readdir(directory)).sort()) {
    if (!name.endsWith(keyFileSuffix) || name.startsWith('.')) continue;
    files.push({ name, bytes: await readSafeFile(join(directory, name)) });
  }
  return files;
}
