// OpenPGP: read public keys, verify detached signatures, and (for publishers) make a signing key and sign.
import {
  type Key,
  type PrivateKey,
  type Signature,
  createMessage,
  generateKey,
  readKeys,
  readPrivateKey,
  readSignature,
  sign,
  verify,
} from 'openpgp';
import { KcareError } from '../base/errors.js';
import { limits } from './names.js';

export interface KeyDescription {
  /** 40 (or, version 6, 64) upper-case hexadecimal digits. */
  readonly fingerprint: string;
  readonly userId: string;
  /** ISO 8601 time, absent for keys that do not expire. */
  readonly expires?: string;
}

/**
 * Reads one OpenPGP public key, armored or binary, and checks that it can sign now.
 * Throws KEY_INVALID for private, expired, revoked and unusable keys and for anything else.
 */
export async function readPublicKey(bytes: Uint8Array): Promise<Key> {
  if (bytes.length > limits.openpgpKey) throw new KcareError('KEY_INVALID', 'The key file is too large.');
  const text = Buffer.from(bytes).toString('latin1').trimStart();
  let keys: Key[];
  try {
    keys = await (text.startsWith('-----BEGIN PGP')
      ? readKeys({ armoredKeys: text })
      : readKeys({ binaryKeys: bytes }));
  } catch (cause) {
    throw new KcareError('KEY_INVALID', 'The file is not an OpenPGP public key.', {}, { cause });
  }
  const [key] = keys;
  if (key === undefined || keys.length > 1) {
    throw new KcareError('KEY_INVALID', `The file holds ${keys.length} keys; export exactly one.`);
  }
  if (key.isPrivate()) {
    throw new KcareError('KEY_INVALID', 'The file is a private key; it must never leave its publisher.');
  }
  try {
    await key.verifyPrimaryKey();
    await key.getSigningKey();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new KcareError('KEY_INVALID', `The OpenPGP key cannot be used: ${why}.`, {}, { cause });
  }
  return key;
}

export async function describeKey(key: Key): Promise<KeyDescription> {
  const expires = await key.getExpirationTime();
  return {
    fingerprint: key.getFingerprint().toUpperCase(),
    userId: key.getUserIDs()[0] ?? '',
    ...(expires instanceof Date ? { expires: expires.toISOString() } : {}),
  };
}

/**
 * Verifies an armored or binary detached signature over `bytes` by any of `keys`; returns the fingerprint of the
 * signer. Throws an error of `code` when no signature is good (R4).
 */
export async function verifyDetached(
  bytes: Uint8Array,
  signature: Uint8Array,
  keys: readonly Key[],
  what: string,
  code: 'FEED_UNTRUSTED' | 'PATCHSET_UNSIGNED',
): Promise<string> {
  const reasons: string[] = [];
  try {
    const result = await verify({
      message: await createMessage({ binary: bytes, format: 'binary' }),
      signature: await readDetached(signature),
      verificationKeys: [...keys],
      format: 'binary',
    });
    for (const one of result.signatures) {
      try {
        await one.verified;
        const signer = keys.find((key) => key.getKeys(one.keyID).length > 0);
        if (signer !== undefined) return signer.getFingerprint().toUpperCase();
      } catch (error) {
        reasons.push(error instanceof Error ? error.message : String(error));
      }
    }
  } catch (error) {
    reasons.push(error instanceof Error ? error.message : String(error));
  }
  throw new KcareError(
    code,
    `${what} has no valid OpenPGP signature by an imported key (${reasons.join('; ') || 'it is not signed'}).`,
    { trustedKeys: keys.map((key) => key.getFingerprint().toUpperCase()) },
  );
}

/**
 * The time (milliseconds since 1970; Infinity: none) before which no key and no detached signature of these expires;
 * what has expired already at `now` supports nothing and does not count.
 */
export async function firstExpiry(
  keys: readonly Key[],
  signatures: readonly Uint8Array[],
  now: Date,
): Promise<number> {
  const times: (Date | number | null)[] = [];
  for (const key of keys) {
    times.push(await key.getExpirationTime());
    for (const subkey of key.subkeys) times.push(await subkey.getExpirationTime());
  }
  for (const bytes of signatures) {
    for (const packet of (await readDetached(bytes)).packets) times.push(packet.getExpirationTime());
  }
  const finite = times.flatMap((time) => (time instanceof Date && time > now ? time.getTime() : []));
  return Math.min(Infinity, ...finite);
}

async function readDetached(bytes: Uint8Array): Promise<Signature> {
  const text = Buffer.from(bytes).toString('latin1');
  return await (text.startsWith('-----BEGIN PGP')
    ? readSignature({ armoredSignature: text })
    : readSignature({ binarySignature: bytes }));
}

/** Makes an Ed25519 signing key in the form that GnuPG 2.2 understands (RFC 4880bis, not RFC 9580). */
export async function makeSigningKey(
  userId: string,
  now: Date,
): Promise<{ readonly privateKey: string; readonly publicKey: string }> {
  const { privateKey, publicKey } = await generateKey({
    type: 'ecc',
    curve: 'ed25519Legacy',
    userIDs: [{ name: userId }],
    date: now,
    format: 'armored',
  });
  return { privateKey, publicKey };
}

export async function readSigningKey(bytes: Uint8Array): Promise<PrivateKey> {
  try {
    return await readPrivateKey({ armoredKey: Buffer.from(bytes).toString('latin1') });
  } catch (cause) {
    throw new KcareError('KEY_INVALID', 'The OpenPGP signing key is damaged.', {}, { cause });
  }
}

/** An ASCII detached signature that `gpg --verify` accepts. */
export async function signDetached(bytes: Uint8Array, key: PrivateKey, now: Date): Promise<Buffer> {
  const signature = await sign({
    message: await createMessage({ binary: bytes, format: 'binary' }),
    signingKeys: key,
    detached: true,
    format: 'object',
    date: now,
  });
  return Buffer.from(signature.armor());
}
