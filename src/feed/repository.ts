// The metadata of a feed as its publisher sees it: read the current versions, sign new ones, write them in a safe order.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MetaFile, Metadata, Root, Snapshot, Targets, Timestamp } from '@tufjs/models';
import type { Key, PrivateKey } from 'openpgp';
import { KcareError } from '../base/errors.js';
import { signDetached } from './openpgp.js';
import { type RoleKey, type RoleName, loadRoleKey, makeRoleKey, roleNames } from './role-keys.js';
import { writeAtomically } from '../base/safe-files.js';
import { prefixField, readMetadata, verifyMetadata, verifyRootChain } from './verify.js';

const specVersion = '1.0.31';
const dayMilliseconds = 86_400_000;

/** How long new metadata is valid, in days; fractions are allowed. */
export type Lifetimes = Readonly<Record<RoleName, number>>;
export const defaultLifetimes: Lifetimes = { root: 365, targets: 90, snapshot: 90, timestamp: 7 };

/** The metadata in force, and the keys that may sign the next. */
export interface Repository {
  readonly directory: string;
  readonly keyDirectory: string;
  readonly root: Metadata<Root>;
  readonly targets: Targets;
  readonly versions: Readonly<Record<RoleName, number>>;
  readonly expires: Readonly<Record<RoleName, Date>>;
}

/** Everything that decides how something is signed: the time it happens and how long it holds. */
export interface Signing {
  readonly now: Date;
  readonly lifetimes: Lifetimes;
}

export function metadataPath(feedDirectory: string, name: string): string {
  return join(feedDirectory, 'metadata', name);
}

/**
 * Reads the metadata that timestamp.json leads to and verifies it as a client would, from the publisher's own OpenPGP key
 * on, except that it may have expired: whoever can write to the served directory must not get anything signed.
 * Undefined: there is no feed. Throws FEED_UNTRUSTED, FEED_MALFORMED, FEED_MISMATCH, FEED_ROLLBACK.
 */
export async function openRepository(
  directory: string,
  keyDirectory: string,
  prefix: string,
  openpgpKey: Key,
): Promise<Repository | undefined> {
  const read = async (name: string): Promise<Buffer> => await readFile(metadataPath(directory, name));
  const roots: Buffer[] = [];
  while (existsSync(metadataPath(directory, `${roots.length + 1}.root.json`))) {
    roots.push(await read(`${roots.length + 1}.root.json`));
  }
  const rootVersion = roots.length;
  if (rootVersion === 0) return undefined;
  const root = await verifyRootChain(
    { roots, signature: await read('1.root.json.asc') },
    [openpgpKey],
    prefix,
  );
  // Only a first publication that was cut short leaves a root without a timestamp; it is simply continued.
  if (!existsSync(metadataPath(directory, 'timestamp.json'))) {
    const never = new Date(0);
    return {
      directory,
      keyDirectory,
      root,
      targets: new Targets({ version: 0, specVersion, expires: never.toISOString() }),
      versions: { root: rootVersion, targets: 0, snapshot: 0, timestamp: 0 },
      expires: { root: new Date(root.signed.expires), targets: never, snapshot: never, timestamp: never },
    };
  }
  const timestampBytes = await read('timestamp.json');
  const snapshotVersion = readMetadata('timestamp', timestampBytes).signed.snapshotMeta.version;
  const snapshotBytes = await read(`${snapshotVersion}.snapshot.json`);
  const targetsVersion = readMetadata('snapshot', snapshotBytes).signed.meta['targets.json']?.version;
  if (targetsVersion === undefined) throw new KcareError('FEED_MALFORMED', 'The snapshot names no targets.');
  const targetsBytes = await read(`${targetsVersion}.targets.json`);
  const stored = { timestamp: timestampBytes, snapshot: snapshotBytes, targets: targetsBytes };
  const { timestamp, snapshot, targets } = verifyMetadata(root, stored, true);
  return {
    directory,
    keyDirectory,
    root,
    targets,
    versions: {
      root: rootVersion,
      targets: targetsVersion,
      snapshot: snapshotVersion,
      timestamp: timestamp.version,
    },
    expires: {
      root: new Date(root.signed.expires),
      targets: new Date(targets.expires),
      snapshot: new Date(snapshot.expires),
      timestamp: new Date(timestamp.expires),
    },
  };
}

/** Makes role keys and the first root, signed by its own key and by the OpenPGP key that clients import. */
export async function startRepository(
  directory: string,
  keyDirectory: string,
  prefix: string,
  openpgpKey: PrivateKey,
  signing: Signing,
): Promise<void> {
  const keys = await Promise.all(roleNames.map(async (role) => await makeRoleKey(keyDirectory, role)));
  const root = new Root({
    version: 1,
    specVersion,
    expires: expiry('root', signing),
    consistentSnapshot: true,
    unrecognizedFields: { [prefixField]: prefix },
  });
  for (const key of keys) root.addKey(key.key, key.role);
  const bytes = signedBytes(
    new Metadata(root),
    keys.filter(({ role }) => role === 'root'),
  );
  // The signature first: a root without one is never there.
  await writeAtomically(
    metadataPath(directory, '1.root.json.asc'),
    await signDetached(bytes, openpgpKey, signing.now),
  );
  await writeAtomically(metadataPath(directory, '1.root.json'), bytes);
}

/**
 * Signs and writes what changed: numbered files first, timestamp.json last, so that a reader (or a crash) in between
 * sees the earlier state. `alsoSign` are keys that a coming root will name (see rotateRole).
 */
export async function commitMetadata(
  repository: Repository,
  changes: { readonly targets?: Targets['targets']; readonly snapshot?: boolean },
  signing: Signing,
  alsoSign: readonly RoleKey[] = [],
): Promise<void> {
  const { directory, versions } = repository;
  const keys = async (role: RoleName): Promise<RoleKey[]> => [
    await keyInForce(repository, role),
    ...alsoSign.filter((key) => key.role === role),
  ];
  let targetsVersion = versions.targets;
  let snapshotVersion = versions.snapshot;
  if (changes.targets !== undefined) {
    targetsVersion += 1;
    const targets = new Targets({
      version: targetsVersion,
      specVersion,
      expires: expiry('targets', signing),
      targets: changes.targets,
    });
    const bytes = signedBytes(new Metadata(targets), await keys('targets'));
    await writeAtomically(metadataPath(directory, `${targetsVersion}.targets.json`), bytes);
  }
  if (changes.targets !== undefined || changes.snapshot === true) {
    snapshotVersion += 1;
    const targetsFile = metadataPath(directory, `${targetsVersion}.targets.json`);
    const snapshot = new Snapshot({
      version: snapshotVersion,
      specVersion,
      expires: expiry('snapshot', signing),
      meta: { 'targets.json': describe(await readFile(targetsFile), targetsVersion) },
    });
    const bytes = signedBytes(new Metadata(snapshot), await keys('snapshot'));
    await writeAtomically(metadataPath(directory, `${snapshotVersion}.snapshot.json`), bytes);
  }
  const snapshotFile = metadataPath(directory, `${snapshotVersion}.snapshot.json`);
  const timestamp = new Timestamp({
    version: versions.timestamp + 1,
    specVersion,
    expires: expiry('timestamp', signing),
    snapshotMeta: describe(await readFile(snapshotFile), snapshotVersion),
  });
  const bytes = signedBytes(new Metadata(timestamp), await keys('timestamp'));
  await writeAtomically(metadataPath(directory, 'timestamp.json'), bytes);
}

/** The next root: the same roles, with `replacement` in the place of that role's keys; signed by old and new root keys. */
export async function writeNextRoot(
  repository: Repository,
  signing: Signing,
  replacement?: RoleKey,
): Promise<void> {
  const { signed } = repository.root;
  const next = new Root({
    version: repository.versions.root + 1,
    specVersion,
    expires: expiry('root', signing),
    consistentSnapshot: true,
    unrecognizedFields: signed.unrecognizedFields,
  });
  for (const role of roleNames) {
    if (role === replacement?.role) next.addKey(replacement.key, role);
    else next.addKey((await keyInForce(repository, role)).key, role);
  }
  const signers = [await keyInForce(repository, 'root')];
  if (replacement?.role === 'root') signers.push(replacement);
  await writeAtomically(
    metadataPath(repository.directory, `${next.version}.root.json`),
    signedBytes(new Metadata(next), signers),
  );
}

async function keyInForce(repository: Repository, role: RoleName): Promise<RoleKey> {
  const keyId = repository.root.signed.roles[role]?.keyIDs[0];
  if (keyId === undefined) throw new KcareError('FEED_MALFORMED', `root.json names no key for ${role}.`);
  return await loadRoleKey(repository.keyDirectory, role, keyId);
}

function expiry(role: RoleName, { now, lifetimes }: Signing): string {
  const time = new Date(now.getTime() + lifetimes[role] * dayMilliseconds);
  // The specification (4.2.1) wants whole seconds.
  return `${time.toISOString().slice(0, 19)}Z`;
}

function describe(bytes: Buffer, version: number): MetaFile {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return new MetaFile({ version, length: bytes.length, hashes: { sha256 } });
}

function signedBytes(
  metadata: Metadata<Root | Targets | Snapshot | Timestamp>,
  keys: readonly RoleKey[],
): Buffer {
  for (const key of keys) metadata.sign((bytes) => key.sign(bytes));
  return Buffer.from(`${JSON.stringify(metadata.toJSON(), undefined, 2)}\n`);
}
