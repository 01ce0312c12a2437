// The private Ed25519 keys of the four metadata roles, kept in a directory outside of the feed.
import {
  type KeyObject,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
} from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Key, Signature } from '@tufjs/models';
import { KcareError } from '../base/errors.js';
import { readSafeFile, safeDirectory, writeAtomically } from '../base/safe-files.js';

export const roleNames = ['root', 'targets', 'snapshot', 'timestamp'] as const;
export type RoleName = (typeof roleNames)[number];

/** A private key with its public part as metadata describes it. */
export interface RoleKey {
  readonly role: RoleName;
  readonly key: Key;
  sign(bytes: Buffer): Signature;
}

const secretMode = 0o600;

/**
 * Makes a key for `role`: `<directory>/<role>-<first 16 digits of the key id>.pem`. Which of several keys of a role is
 * in force is said by root.json alone, so a rotation that is interrupted leaves nothing ambiguous.
 */
export async function makeRoleKey(keyDirectory: string, role: RoleName): Promise<RoleKey> {
  const directory = await safeDirectory(keyDirectory, 0o700);
  const { privateKey } = generateKeyPairSync('ed25519');
  const made = roleKey(role, privateKey);
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  await writeAtomically(join(directory, fileName(role, made.key.keyID)), Buffer.from(pem), secretMode);
  return made;
}

/** The private key of `role` with the id `keyId`. Throws KEYS_MISSING, KEY_INVALID, UNSAFE_MODE. */
export async function loadRoleKey(keyDirectory: string, role: RoleName, keyId: string): Promise<RoleKey> {
  const directory = await safeDirectory(keyDirectory, 0o700);
  const path = join(directory, fileName(role, keyId));
  if (!existsSync(path)) {
    throw new KcareError('KEYS_MISSING', `The key directory lacks ${path}, the ${role} key of this feed.`);
  }
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(await readSafeFile(path, true));
  } catch (cause) {
    if (cause instanceof KcareError) throw cause;
    throw new KcareError('KEY_INVALID', `${path} is not a private key.`, {}, { cause });
  }
  const loaded = roleKey(role, privateKey);
  if (loaded.key.keyID !== keyId) {
    throw new KcareError('KEY_INVALID', `${path} is another key than the one root.json names for ${role}.`);
  }
  return loaded;
}

/** Deletes the keys of `role` except the one in force; returns how many there were. */
export async function retireRoleKeys(keyDirectory: string, role: RoleName, keep: string): Promise<number> {
  const directory = await safeDirectory(keyDirectory, 0o700);
  const names = (await readdir(directory)).filter(
    (name) => name.startsWith(`${role}-`) && name.endsWith('.pem') && name !== fileName(role, keep),
  );
  for (const name of names) await rm(join(directory, name));
  return names.length;
}

function fileName(role: RoleName, keyId: string): string {
  return `${role}-${keyId.slice(0, 16)}.pem`;
}

function roleKey(role: RoleName, privateKey: KeyObject): RoleKey {
  // The last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the raw key (RFC 8410).
  const raw = createPublicKey(privateKey)
    .export({ type: 'spki', format: 'der' })
    .subarray(-32)
    .toString('hex');
  // The names in this order are canonical JSON, whose SHA-256 is the key id by the TUF specification (4.2).
  const canonical = JSON.stringify({ keytype: 'ed25519', keyval: { public: raw }, scheme: 'ed25519' });
  const keyID = createHash('sha256').update(canonical).digest('hex');
  return {
    role,
    key: new Key({ keyID, keyType: 'ed25519', scheme: 'ed25519', keyVal: { public: raw } }),
    sign: (bytes) => new Signature({ keyID, sig: sign(null, bytes, privateKey).toString('hex') }),
  };
}
