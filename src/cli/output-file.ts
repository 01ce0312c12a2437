// The file that a user names with --output.
import { constants, lstatSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { KcareError, namingFullDisk } from '../base/errors.js';
import { writeAtomically } from '../base/safe-files.js';

/** What is open already, whatever it leads to. */
const openedAlready = /^\/(?:dev\/(?:stdout|stderr|fd\/\d+)|proc\/self\/fd\/\d+)$/;

/**
 * A reader finds the old file or the whole new one. What is no file (a device, a pipe, /dev/stdout) is written to, never
 * replaced; a link is replaced, so that nobody who can lay one says where root writes. Throws USAGE for a directory.
 */
export async function writeOutput(path: string, text: string): Promise<void> {
  const file = resolve(path);
  const status = lstatSync(file, { throwIfNoEntry: false });
  if (status?.isDirectory())
    throw new KcareError('USAGE', `--output names the directory ${file}; name a file.`);
  await namingFullDisk(file, () => {
    if (openedAlready.test(file)) return writeFile(file, text);
    const isReplaced = !status || status.isFile() || status.isSymbolicLink();
    return isReplaced ? writeAtomically(file, Buffer.from(text)) : writeInto(file, text);
  });
}

async function writeInto(file: string, text: string): Promise<void> {
  const opened = await open(file, constants.O_WRONLY | constants.O_NOFOLLOW);
  try {
    await opened.writeFile(text);
  } finally {
    await opened.close();
  }
}
