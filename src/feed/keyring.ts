// The OpenPGP keys that an agent trusts: one file for each key in a directory that only root may change.
import { readFile, rm, stat } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Key } from 'openpgp';
import { KcareError, asKcareError } from '../base/errors.js';
import { keyFileSuffix, readKeyFiles } from './key-files.js';
import { limits } from './names.js';
import { type KeyDescription, describeKey, readPublicKey } from './openpgp.js';
import { safeDirectory, writeAtomically } from '../base/safe-files.js';
import type { KeyFile } from './verdict.js';

/**
 * Adds the public key in the file `path` (armored or binary) to the trusted keys. Importing a key again refreshes it.
 * Throws KEY_INVALID, UNSAFE_MODE, FILE_MISSING.
 */
export async function importKey(keyDirectory: string, path: string): Promise<KeyDescription> {
  const bytes = await readKeyFile(path);
  const key = await readPublicKey(bytes);
  const description = await describeKey(key);
  const directory = await safeDirectory(keyDirectory);
  await writeAtomically(
    join(directory, `${description.fingerprint}${keyFileSuffix}`),
    Buffer.from(key.armor()),
  );
  return description;
}

/** Takes a key out of the trusted ones; returns false when it was not there. */
export async function removeKey(keyDirectory: string, fingerprint: string): Promise<boolean> {
  const directory = await safeDirectory(keyDirectory);
  const name = fingerprint.replaceAll(' ', '').toUpperCase();
  if (!/^[0-9A-F]{40,64}$/.test(name)) throw new KcareError('USAGE', `${fingerprint} is not a fingerprint.`);
  const path = join(directory, `${name}${keyFileSuffix}`);
  const present = existsSync(path);
  await rm(path, { force: true });
  return present;
}

/** The trusted keys that are usable now, sorted by fingerprint. Throws UNSAFE_MODE. */
export async function listKeys(keyDirectory: string): Promise<KeyDescription[]> {
  return await Promise.all((await loadKeys(keyDirectory)).keys.map(describeKey));
}

/** The usable ones of the trusted keys, and why others were left out (expired, revoked, damaged). */
export interface LoadedKeys {
  readonly keys: readonly Key[];
  readonly unusable: readonly string[];
  readonly files: readonly KeyFile[];
}

/** Throws UNSAFE_MODE (R10). */
export async function loadKeys(keyDirectory: string): Promise<LoadedKeys> {
  const keys: Key[] = [];
  const unusable: string[] = [];
  const files = await readKeyFiles(keyDirectory);
  for (const { name, bytes } of files) {
    try {
      keys.push(await readPublicKey(bytes));
    } catch (error) {
      if (!(error instanceof KcareError)) throw error;
      unusable.push(`${name}: ${error.message}`);
    }
  }
  return { keys, unusable, files };
}

/** The trusted keys for verifying a feed; throws FEED_UNTRUSTED when there are none (R4). */
export async function requireKeys(keyDirectory: string): Promise<LoadedKeys> {
  const loaded = await loadKeys(keyDirectory);
  if (loaded.keys.length > 0) return loaded;
  const { unusable } = loaded;
  const why = unusable.length === 0 ? 'no OpenPGP key is imported' : `no usable key: ${unusable.join(' ')}`;
  throw new KcareError('FEED_UNTRUSTED', `The feed cannot be trusted: ${why}.`);
}

async function readKeyFile(path: string): Promise<Buffer> {
  const status = await stat(path).catch((error: unknown) => {
    throw asKcareError(error);
  });
  if (!status.isFile()) throw new KcareError('KEY_INVALID', `${path} is not a file.`);
  if (status.size > limits.openpgpKey) throw new KcareError('KEY_INVALID', `${path} is too large for a key.`);
  return await readFile(path);
}
