// Verification of stored metadata, link by link, with errors that say which promise was broken.
import {
  type Root,
  type Snapshot,
  type Targets,
  type Timestamp,
  Metadata,
  MetadataKind,
} from '@tufjs/models';
import type { Key } from 'openpgp';
import { KcareError } from '../base/errors.js';
import { verifyDetached } from './openpgp.js';
import { asFeedError } from './failures.js';
import { parseJson } from './schema.js';

/** Signed field of root.json that names the prefix, so that metadata of `test` cannot be served as `main`. */
export const prefixField = 'x-kcare-prefix';

interface MetadataTypes {
  root: Root;
  timestamp: Timestamp;
  snapshot: Snapshot;
  targets: Targets;
}

/** Parses one metadata file without verifying it. Throws FEED_MALFORMED. */
export function readMetadata<K extends keyof MetadataTypes>(
  kind: K,
  bytes: Uint8Array,
): Metadata<MetadataTypes[K]> {
  const what = `${kind}.json`;
  const value = parseJson(bytes, what);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new KcareError('FEED_MALFORMED', `${what} is not an object.`);
  }
  try {
    return parsers[kind](value as Parameters<typeof Metadata.fromJSON>[1]);
  } catch (error) {
    throw asFeedError(error, what);
  }
}

type Parse<T extends MetadataTypes[keyof MetadataTypes]> = (
  value: Parameters<typeof Metadata.fromJSON>[1],
) => Metadata<T>;

const parsers: { readonly [K in keyof MetadataTypes]: Parse<MetadataTypes[K]> } = {
  root: (value) => Metadata.fromJSON(MetadataKind.Root, value),
  timestamp: (value) => Metadata.fromJSON(MetadataKind.Timestamp, value),
  snapshot: (value) => Metadata.fromJSON(MetadataKind.Snapshot, value),
  targets: (value) => Metadata.fromJSON(MetadataKind.Targets, value),
};

/** The roots from version 1 on, as bytes, and the OpenPGP signature over the first. */
export interface RootChain {
  readonly roots: readonly Buffer[];
  readonly signature: Buffer;
}

/**
 * Establishes trust: an imported OpenPGP key signed the first root, that root is for `prefix`, and each later root
 * is signed by the one before it and by itself (TUF client workflow 5.3). Returns the last root.
 */
export async function verifyRootChain(
  chain: RootChain,
  keys: readonly Key[],
  prefix: string,
): Promise<Metadata<Root>> {
  const [first] = chain.roots;
  if (first === undefined) throw new KcareError('FEED_UNTRUSTED', 'The feed has no root.');
  // R4: the OpenPGP signature comes before any byte of the root is parsed.
  await verifyDetached(first, chain.signature, keys, '1.root.json', 'FEED_UNTRUSTED');
  let trusted: Metadata<Root> | undefined;
  for (const [index, bytes] of chain.roots.entries()) {
    const name = `${index + 1}.root.json`;
    const next = readMetadata('root', bytes);
    delegate(trusted ?? next, 'root', next, name);
    delegate(next, 'root', next, name);
    if (next.signed.version !== index + 1) {
      throw new KcareError('FEED_ROLLBACK', `${name} says that it is version ${next.signed.version}.`);
    }
    const named = next.signed.unrecognizedFields[prefixField];
    if (named !== prefix) {
      throw new KcareError(
        'FEED_UNTRUSTED',
        `The feed is "${typeof named === 'string' ? named : '?'}", not "${prefix}": it is served in the wrong place.`,
      );
    }
    trusted = next;
  }
  if (trusted === undefined) throw new KcareError('FEED_UNTRUSTED', 'The feed has no root.');
  return trusted;
}

/** The three files below the root, as bytes. */
export interface StoredMetadata {
  readonly timestamp: Buffer;
  readonly snapshot: Buffer;
  readonly targets: Buffer;
}

export interface VerifiedMetadata {
  readonly timestamp: Timestamp;
  readonly snapshot: Snapshot;
  readonly targets: Targets;
  /** When the first of root, timestamp, snapshot and targets expires. */
  readonly expires: Date;
}

/**
 * Verifies timestamp, snapshot and targets under a trusted root: signatures, the chain of versions, lengths and hashes,
 * and that nothing has expired. `allowExpired` leaves out only the last check.
 */
export function verifyMetadata(
  root: Metadata<Root>,
  stored: StoredMetadata,
  allowExpired: boolean,
): VerifiedMetadata {
  const { timestamp, snapshot } = verifySnapshot(root, stored, allowExpired);
  const targetsMeta = snapshot.signed.meta['targets.json'];
  if (targetsMeta === undefined) {
    throw new KcareError('FEED_MALFORMED', 'snapshot.json does not name targets.json.');
  }
  fits(() => targetsMeta.verify(stored.targets), 'targets.json');
  const targets = readMetadata('targets', stored.targets);
  delegate(root, 'targets', targets, 'targets.json');
  sameVersion(targets.signed.version, targetsMeta.version, 'targets.json');
  if (!allowExpired) unexpired(targets, 'targets.json');
  const times = [root, timestamp, snapshot, targets].map((part) => Date.parse(part.signed.expires));
  return {
    timestamp: timestamp.signed,
    snapshot: snapshot.signed,
    targets: targets.signed,
    expires: new Date(Math.min(...times)),
  };
}

/** The first half of {@link verifyMetadata}: root, timestamp and snapshot. */
export function verifySnapshot(
  root: Metadata<Root>,
  stored: Pick<StoredMetadata, 'timestamp' | 'snapshot'>,
  allowExpired: boolean,
): { readonly timestamp: Metadata<Timestamp>; readonly snapshot: Metadata<Snapshot> } {
  if (!allowExpired) unexpired(root, 'root.json');
  const timestamp = readMetadata('timestamp', stored.timestamp);
  delegate(root, 'timestamp', timestamp, 'timestamp.json');
  if (!allowExpired) unexpired(timestamp, 'timestamp.json');
  const snapshotMeta = timestamp.signed.snapshotMeta;
  fits(() => snapshotMeta.verify(stored.snapshot), 'snapshot.json');
  const snapshot = readMetadata('snapshot', stored.snapshot);
  delegate(root, 'snapshot', snapshot, 'snapshot.json');
  sameVersion(snapshot.signed.version, snapshotMeta.version, 'snapshot.json');
  if (!allowExpired) unexpired(snapshot, 'snapshot.json');
  return { timestamp, snapshot };
}

function unexpired(file: AnyMetadata, name: string): void {
  const { expires } = file.signed;
  if (!file.signed.isExpired() && !Number.isNaN(Date.parse(expires))) return;
  throw new KcareError('FEED_EXPIRED', `${name} of the feed expired on ${expires}.`);
}

type AnyMetadata = Metadata<Root> | Metadata<Timestamp> | Metadata<Snapshot> | Metadata<Targets>;

function delegate(by: Metadata<Root>, role: keyof MetadataTypes, file: AnyMetadata, name: string): void {
  fits(() => by.verifyDelegate(role, file), name);
}

function fits(check: () => void, name: string): void {
  try {
    check();
  } catch (error) {
    throw asFeedError(error, name);
  }
}

function sameVersion(found: number, expected: number, name: string): void {
  if (found === expected) return;
  const code = found < expected ? 'FEED_ROLLBACK' : 'FEED_MISMATCH';
  throw new KcareError(code, `${name} is version ${found}, but version ${expected} was announced.`);
}
