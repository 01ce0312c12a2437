// The key directory of a publisher: one OpenPGP signing key, and a directory of role keys for each prefix.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { PrivateKey } from 'openpgp';
import { lock } from 'proper-lockfile';
import { KcareError } from '../base/errors.js';
import { publicKeyName } from './names.js';
import { makeSigningKey, readSigningKey } from './openpgp.js';
import { readSafeFile, safeDirectory, writeAtomically } from '../base/safe-files.js';

const signingKeyName = 'openpgp-private.asc';

export interface PublisherKeys {
  readonly openpgp: PrivateKey;
  /** Where the role keys of this prefix are: each prefix has its own, so that its metadata is no other's. */
  readonly roleDirectory: string;
  /** Writes the public OpenPGP key into the served directory, if it is not there. */
  exportPublicKey(servedDirectory: string): Promise<void>;
}

/** Opens the keys; `create` makes a missing OpenPGP key, dated `now`. Throws KEYS_MISSING, UNSAFE_MODE. */
export async function openPublisherKeys(
  keyDirectory: string,
  prefix: string,
  create?: { readonly now: Date },
): Promise<PublisherKeys> {
  const secret = join(keyDirectory, signingKeyName);
  if (!existsSync(secret) && create === undefined) {
    throw new KcareError('KEYS_MISSING', `${keyDirectory} holds no signing key of a feed.`);
  }
  const directory = await safeDirectory(keyDirectory, 0o700);
  if (!existsSync(secret)) {
    const made = await makeSigningKey('kcare feed', create?.now ?? new Date());
    await writeAtomically(join(directory, publicKeyName), Buffer.from(made.publicKey));
    await writeAtomically(secret, Buffer.from(made.privateKey), 0o600);
  }
  const openpgp = await readSigningKey(await readSafeFile(secret, true));
  const roleDirectory = await safeDirectory(join(directory, prefix), 0o700);
  return {
    openpgp,
    roleDirectory,
    exportPublicKey: async (servedDirectory) => {
      const path = join(servedDirectory, publicKeyName);
      if (!existsSync(path)) await writeAtomically(path, Buffer.from(openpgp.toPublic().armor()));
    },
  };
}

/** Runs `action` while no other publisher writes this feed. */
export async function publisherLock<T>(keys: PublisherKeys, action: () => Promise<T>): Promise<T> {
  let release: () => Promise<void>;
  try {
    release = await lock(keys.roleDirectory, {
      lockfilePath: join(keys.roleDirectory, '.publishing'),
      retries: { retries: 25, minTimeout: 100, maxTimeout: 1000 },
    });
  } catch (cause) {
    throw new KcareError('FEED_BUSY', 'Another publication into this feed is running.', {}, { cause });
  }
  try {
    return await action();
  } finally {
    await release();
  }
}
