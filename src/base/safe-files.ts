// Files that only root (or the user who runs kcare) may change: mode checks, atomic writes.
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { lstat, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { KcareError, asKcareError } from './errors.js';

const groupOrOthersWrite = 0o022;
const sticky = 0o1000;

/**
 * Makes `path` with mode `mode` if it is missing, then checks it (R10): it and every directory above belong to
 * root or to the user running this, and nobody else may write there (directories above may be sticky, as /tmp).
 * Throws UNSAFE_MODE.
 */
export async function safeDirectory(path: string, mode = 0o755): Promise<string> {
  const full = resolve(path);
  try {
    mkdirSync(full, { recursive: true, mode });
  } catch (error) {
    // EEXIST: something that is no directory lies there, which the check below says better.
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw asKcareError(error);
  }
  await checkSafe(full, 'directory');
  for (let above = dirname(full); ; above = dirname(above)) {
    const status = await lstat(above);
    // A link above is followed by its target's own permissions; what counts is that nobody else can replace it.
    if (!status.isSymbolicLink()) checkOwner(above, status.uid);
    if (
      !status.isSymbolicLink() &&
      (status.mode & groupOrOthersWrite) !== 0 &&
      (status.mode & sticky) === 0
    ) {
      throw unsafe(above, 'is writable by others');
    }
    if (above === dirname(above)) return full;
  }
}

/** Reads a file of a safe directory after checking owner, kind and mode (R10). `secret`: no one else may read it. */
export async function readSafeFile(path: string, secret = false): Promise<Buffer> {
  await checkSafe(path, 'file', secret);
  return await readFile(path);
}

/** A program of a safe directory that is to be run: the rules of {@link readSafeFile} (R10). Throws UNSAFE_MODE. */
export async function checkSafeProgram(path: string): Promise<void> {
  await checkSafe(path, 'file');
}

async function checkSafe(path: string, kind: 'file' | 'directory', secret = false): Promise<void> {
  const status = await lstat(path);
  if (kind === 'file' ? !status.isFile() : !status.isDirectory())
    throw unsafe(path, `is not a plain ${kind}`);
  checkOwner(path, status.uid);
  if ((status.mode & groupOrOthersWrite) !== 0) throw unsafe(path, 'is writable by others');
  if (secret && (status.mode & 0o077) !== 0) throw unsafe(path, 'is a secret that others can read');
}

function checkOwner(path: string, uid: number): void {
  if (uid !== 0 && uid !== process.geteuid?.()) throw unsafe(path, `belongs to user ${uid}`);
}

function unsafe(path: string, why: string): KcareError {
  return new KcareError('UNSAFE_MODE', `${path} ${why}; it is not used.`, { path });
}

/**
 * Writes a file so that at any moment either the old or the whole new contents are there: temporary file,
 * fsync, rename, fsync of the directory. Makes missing directories.
 */
export async function writeAtomically(path: string, bytes: Uint8Array, mode = 0o644): Promise<void> {
  const directory = dirname(path);
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const temporary = join(directory, `.${randomBytes(8).toString('hex')}.tmp`);
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw naming(path, error);
  }
  await syncDirectory(directory);
}

/** Who may not write has no use for the name of the temporary file. */
function naming(path: string, error: unknown): unknown {
  const { code, message } = asKcareError(error);
  if (code !== 'READ_ONLY' && code !== 'NOT_PERMITTED') return error;
  const text = `${path} cannot be written: ${message.replace(/, \w+ '.*$/s, '')}`;
  return new KcareError(code, text, { path }, { cause: error });
}

/** Makes renames and new names in `path` survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
