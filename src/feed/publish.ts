// The publisher's commands: start a feed, publish a patchset, renew what is about to expire, rotate a role key.
import { createHash } from 'node:crypto';
import { resolve, sep } from 'node:path';
import { TargetFile, type Targets } from '@tufjs/models';
import { KcareError } from '../base/errors.js';
import {
  feedListPath,
  feedPrefix,
  hashedPath,
  isOfKind,
  isPatchsetName,
  nextPatchsetName,
  patchsetPath,
  type PatchsetKind,
} from './names.js';
import { signDetached } from './openpgp.js';
import { type FeedPatch, checkBuildIds, kindOfFiles, mergePatches, readFeedPatches } from './merge.js';
import { type PublisherKeys, openPublisherKeys, publisherLock } from './publisher-keys.js';
import {
  type Lifetimes,
  type Repository,
  commitMetadata,
  defaultLifetimes,
  openRepository,
  startRepository,
  writeNextRoot,
} from './repository.js';
import { type RoleName, makeRoleKey, retireRoleKeys, roleNames } from './role-keys.js';
import { type ReleasedPatchset, printDocument } from './schema.js';
import { type StoredTargets, readStoredIndex, readStoredList, targetFilePath } from './stored-targets.js';
import { writeAtomically } from '../base/safe-files.js';

export interface FeedLocation {
  /** The directory that is served; the feed itself is its subdirectory `prefix`. */
  readonly feedDirectory: string;
  /** Private keys; must lie outside of the feed directory. */
  readonly keyDirectory: string;
  /** Default "main". */
  readonly prefix?: string;
  /** The time that signatures and expiry start from; default the clock. */
  readonly now?: Date;
  /** Days of validity for each role; default 365, 90, 90, 7. */
  readonly lifetimes?: Partial<Lifetimes>;
}

export interface PublishOptions extends FeedLocation {
  readonly files: readonly string[];
  /** Default: today's next number. */
  readonly patchset?: string;
  /** Make keys and start the feed if it is not there yet. */
  readonly createKeys?: boolean;
  /** Build-ids whose patches the new patchset leaves out. */
  readonly without?: readonly string[];
  /** Keep only so many of the newest patchsets in the feed; default all. */
  readonly keep?: number;
}

export interface PublishResult {
  /** False: the feed held all of it already and was left as it was. */
  readonly changed: boolean;
  readonly prefix: string;
  /** The newest patchset of the feed afterwards; absent for a feed without any. */
  readonly patchset?: string;
  /** Paths of the targets that are new. */
  readonly added: readonly string[];
  /** Fingerprint of the OpenPGP key that clients must import. */
  readonly fingerprint: string;
}

/**
 * Publishes patches as a new patchset, which also keeps the patches of the one before it. Atomic: clients see the old
 * or the new feed. Throws FEED_MISSING, KEYS_MISSING, FEED_CONFLICT, PATCH_MALFORMED and errors of files.
 */
export async function publish(options: PublishOptions): Promise<PublishResult> {
  return await withFeed(options, options.createKeys === true, async (feed) => {
    if (options.patchset !== undefined && !isPatchsetName(options.patchset)) {
      throw new KcareError('USAGE', `${options.patchset} is not a patchset name such as U20261122_01.`);
    }
    if (options.keep !== undefined && !(options.keep >= 1)) {
      throw new KcareError('USAGE', 'At least one patchset must be kept.');
    }
    const patches = await readFeedPatches(options.files);
    const list = await readStoredList(feed.repository);
    const result = {
      prefix: feed.prefix,
      fingerprint: feed.keys.openpgp.getFingerprint().toUpperCase(),
    };
    const without = options.without ?? [];
    const kind = kindOf(options, feed.repository.targets.targets);
    const newest = list.findLast((one) => isOfKind(kind, one))?.name;
    checkBuildIds(without, feed.repository.targets.targets);
    const named = list.find(({ name }) => name === options.patchset)?.name;
    if (await alreadyHolds(feed.repository, named ?? newest, patches, without)) {
      if (options.patchset === undefined || named !== undefined || patches.length === 0) {
        // A feed that was only just started still needs its first timestamp.
        if (feed.repository.versions.timestamp === 0) await commitList(feed, list, {}, []);
        return { changed: feed.started, ...result, ...withName(newest), added: [] };
      }
    }
    const name = newName(options.patchset, list, feed.now, kind);
    const previous = newest === undefined ? [] : (await readStoredIndex(feed.repository, newest)).patches;
    const entries = mergePatches(previous, patches, feed.repository.targets.targets, without);
    const index = printDocument({ name, created: feed.now.toISOString(), patches: entries });
    const additions: Record<string, Buffer> = {};
    for (const patch of patches) additions[patch.entry.file] = patch.bytes;
    additions[patchsetPath(name)] = index;
    additions[`${patchsetPath(name)}.asc`] = await signDetached(index, feed.keys.openpgp, feed.now);
    const added = Object.keys(additions).filter((path) => !(path in feed.repository.targets.targets));
    const longer = [...list, { name, released: feed.now.toISOString() }];
    await commitList(feed, keepNewest(longer, kind, options.keep), additions, added);
    return { changed: true, ...result, patchset: name, added };
  });
}

/**
 * Renews what has used up half of its lifetime, and always the timestamp; for a timer that runs daily.
 * Returns the roles that were signed anew.
 */
export async function refreshFeed(options: FeedLocation): Promise<readonly RoleName[]> {
  return await withFeed(options, false, async (feed) => {
    const { repository, signing, now } = feed;
    const due = (role: RoleName): boolean =>
      repository.expires[role].getTime() - now.getTime() < signing.lifetimes[role] * 43_200_000;
    const targets = due('targets');
    const snapshot = targets || due('snapshot');
    await commitMetadata(
      repository,
      { snapshot, ...(targets ? { targets: repository.targets.targets } : {}) },
      signing,
    );
    const root = due('root');
    if (root) await writeNextRoot(repository, signing);
    const renewed = { root, targets, snapshot, timestamp: true };
    return roleNames.filter((role) => renewed[role]);
  });
}

/**
 * Replaces the key of one role. Metadata is first signed with the old and the new key, then the next root names the new
 * one: clients that saw either root can verify it at every moment. Returns the new key's id.
 */
export async function rotateRole(options: FeedLocation & { readonly role: RoleName }): Promise<string> {
  return await withFeed(options, false, async (feed) => {
    const { repository, signing, keys } = feed;
    const { role } = options;
    const next = await makeRoleKey(keys.roleDirectory, role);
    if (role !== 'root') {
      const changes = {
        snapshot: role === 'snapshot',
        ...(role === 'targets' ? { targets: repository.targets.targets } : {}),
      };
      await commitMetadata(repository, changes, signing, [next]);
    }
    await writeNextRoot(repository, signing, next);
    await retireRoleKeys(keys.roleDirectory, role, next.key.keyID);
    return next.key.keyID;
  });
}

interface OpenFeed {
  readonly prefix: string;
  readonly now: Date;
  readonly signing: { readonly now: Date; readonly lifetimes: Lifetimes };
  readonly keys: PublisherKeys;
  readonly repository: Repository;
  readonly started: boolean;
}

async function withFeed<T>(
  options: FeedLocation,
  create: boolean,
  action: (feed: OpenFeed) => Promise<T>,
): Promise<T> {
  const prefix = feedPrefix(options.prefix);
  const now = options.now ?? new Date();
  const lifetimes = { ...defaultLifetimes, ...options.lifetimes };
  for (const role of roleNames) {
    if (!(lifetimes[role] > 0))
      throw new KcareError('USAGE', `The lifetime of ${role} must be above 0 days.`);
  }
  const served = resolve(options.feedDirectory);
  if (`${resolve(options.keyDirectory)}${sep}`.startsWith(`${served}${sep}`)) {
    throw new KcareError(
      'USAGE',
      'The key directory must lie outside of the feed, which is served to everybody.',
    );
  }
  const directory = resolve(served, prefix);
  const signing = { now, lifetimes };
  const keys = await openPublisherKeys(options.keyDirectory, prefix, create ? { now } : undefined);
  return await publisherLock(keys, async () => {
    const open = async (): Promise<Repository | undefined> =>
      await openRepository(directory, keys.roleDirectory, prefix, keys.openpgp.toPublic());
    let repository = await open();
    const started = repository === undefined;
    if (repository === undefined) {
      if (!create) throw new KcareError('FEED_MISSING', `There is no feed in ${directory}.`);
      await startRepository(directory, keys.roleDirectory, prefix, keys.openpgp, signing);
      repository = await open();
    }
    if (repository === undefined) throw new KcareError('INTERNAL', 'The new feed cannot be read.');
    await keys.exportPublicKey(served);
    return await action({ prefix, now, signing, keys, repository, started });
  });
}

/** Writes the new target files, then the metadata that makes them visible. */
async function commitList(
  feed: OpenFeed,
  list: readonly ReleasedPatchset[],
  additions: Readonly<Record<string, Buffer>>,
  added: readonly string[],
): Promise<void> {
  const { repository } = feed;
  const targets = { ...repository.targets.targets };
  const write = async (path: string, bytes: Buffer): Promise<void> => {
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    await writeAtomically(targetFilePath(repository.directory, hashedPath(path, sha256)), bytes);
    targets[path] = new TargetFile({ path, length: bytes.length, hashes: { sha256 } });
  };
  for (const [path, bytes] of Object.entries(additions)) if (added.includes(path)) await write(path, bytes);
  await write(feedListPath, printDocument(list));
  const kept = await withoutDropped({ directory: repository.directory, targets: { targets } }, list);
  await commitMetadata(repository, { targets: kept }, feed.signing);
}

/** The targets without patchsets that are no longer in `list` and patches that only those had. */
async function withoutDropped(
  repository: StoredTargets,
  list: readonly ReleasedPatchset[],
): Promise<Targets['targets']> {
  const used = new Set<string>([feedListPath]);
  for (const { name } of list) {
    used.add(patchsetPath(name)).add(`${patchsetPath(name)}.asc`);
    for (const { file } of (await readStoredIndex(repository, name)).patches) used.add(file);
  }
  return Object.fromEntries(Object.entries(repository.targets.targets).filter(([path]) => used.has(path)));
}

/** What is published says it, else the name of the patchset, else what `--without` takes out. Throws USAGE. */
function kindOf(options: PublishOptions, published: Readonly<Record<string, unknown>>): PatchsetKind {
  const ofKernels = (options.without ?? []).some((buildId) =>
    Object.keys(published).some((path) => path.startsWith(`patches/${buildId}-`) && path.endsWith('.ko')),
  );
  const ofFiles = kindOfFiles(options.files);
  const named = options.patchset?.startsWith('K') ? 'K' : 'U';
  const kind = ofFiles ?? (options.patchset === undefined && ofKernels ? 'K' : named);
  if (options.patchset !== undefined && named !== kind)
    throw new KcareError(
      'USAGE',
      `${options.patchset} cannot hold these patches: names with K are for kernels, those with U for libraries.`,
    );
  return kind;
}

/** Drops the oldest of this kind beyond `keep`. */
function keepNewest(
  list: readonly ReleasedPatchset[],
  kind: PatchsetKind,
  keep: number | undefined,
): readonly ReleasedPatchset[] {
  if (keep === undefined) return list;
  const kept = list.filter((one) => isOfKind(kind, one)).slice(-keep);
  return list.filter((one) => !isOfKind(kind, one) || kept.includes(one));
}

function newName(
  wanted: string | undefined,
  list: readonly ReleasedPatchset[],
  now: Date,
  kind: PatchsetKind,
): string {
  const names = list.filter((one) => isOfKind(kind, one)).map(({ name }) => name);
  const name = wanted ?? nextPatchsetName(names, now, kind);
  const newest = names.at(-1);
  if (newest === undefined || name > newest) return name;
  const why = names.includes(name) ? 'exists with other contents' : `is not later than ${newest}`;
  throw new KcareError('FEED_CONFLICT', `Patchset ${name} ${why}; a published patchset never changes.`);
}

async function alreadyHolds(
  repository: Repository,
  name: string | undefined,
  patches: readonly FeedPatch[],
  without: readonly string[],
): Promise<boolean> {
  if (name === undefined) return patches.length === 0;
  const entries = (await readStoredIndex(repository, name)).patches;
  return (
    !entries.some((entry) => without.includes(entry.buildId)) &&
    patches.every(({ entry: wanted }) =>
      entries.some((entry) => entry.buildId === wanted.buildId && entry.sha256 === wanted.sha256),
    )
  );
}

function withName(name: string | undefined): { patchset?: string } {
  return name === undefined ? {} : { patchset: name };
}
