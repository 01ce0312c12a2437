// The file that a user names with --output.
import { lstatSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { KcareError, namingFullDisk } from '../base/errors.js';
import { writeAtomically } from '../base/safe-files.js';

/**
 * A reader finds the old file or the whole new one. What is no file (a device, a pipe, /dev/stdout) is written to, never
 * replaced; a link is replaced, so that nobody who can lay one says where root writes. Throws USAGE for a directory.
 */
export async function writeOutput(path: string, text: string): Promise<void> {
  const file = resolve(path);
  const status = lstatSync(file, { throwIfNoEntry: false });
  if (status?.isDirectory())
    throw new KcareError('USAGE', `--output names the directory ${file}; name a file.`);
  const isReplaced = !status || status.isFile() || status.isSymbolicLink();
  await namingFullDisk(file, () =>
    isReplaced && !/^\/(?:dev|proc)\//.test(file)
      ? writeAtomically(file, Buffer.from(text))
      : writeFile(file, text),
  );
}
