// A verified feed with one chosen patchset: what it fixes, and its patches on demand.
import { createHash } from 'node:crypto';
import { KcareError } from '../base/errors.js';
import { type FeedCache, readCachedTarget, targetPath, writeCachedTarget } from './cache.js';
import { asFeedError } from './failures.js';
import { type FeedFetcher, withoutPassword } from './fetcher.js';
import { feedListPath, hashedPath, isOfKind, limits, patchsetPath, type PatchsetKind } from './names.js';
import { type PatchEntry, type ReleasedPatchset, parseFeedList, parsePatchsetIndex } from './schema.js';

/**
 * Chooses one of `patchsets` (oldest first) by name; undefined: none of them. Offline, `patchsets` are those whose index
 * is cached.
 */
export type SelectPatchset = (patchsets: readonly ReleasedPatchset[]) => string | undefined;

/** The bytes of a patch whose length, hash and both signatures were verified (R4). */
export interface VerifiedPatchFile {
  readonly bytes: Uint8Array;
  readonly sha256: string;
  readonly buildId: string;
  readonly level: number;
  readonly patchset: string;
}

export interface FeedState {
  readonly prefix: string;
  /** Undefined: the feed is empty, or `select` chose none. */
  readonly patchset: string | undefined;
  /** All patchsets of the feed of the kind asked for, oldest first. */
  readonly patchsets: readonly ReleasedPatchset[];
  /** The patches of the chosen patchset: one for each build-id, with level and CVEs. */
  readonly patches: readonly PatchEntry[];
  /** ISO 8601 time from which on this metadata is refused. */
  readonly expires: string;
  /** Fingerprint of the OpenPGP key that signed the chosen patchset. */
  readonly signedBy: string | undefined;
  /** Undefined: the patchset has no patch for this object. Downloads it when it is not cached. */
  patchFor(buildId: string): Promise<VerifiedPatchFile | undefined>;
  /** Where the cache keeps the patch once {@link patchFor} gave it; whoever reads it there checks its hash. */
  cachedPath(patch: PatchEntry): string;
}

export interface ListedTarget {
  readonly length: number;
  /** Hexadecimal, by algorithm. */
  readonly hashes: Readonly<Record<string, string>>;
}

export type ListedTargets = Readonly<Record<string, ListedTarget>>;

export interface StateSource {
  readonly base: URL;
  readonly prefix: string;
  readonly cache: FeedCache;
  /** Of verified metadata, by path. */
  readonly targets: ListedTargets;
  readonly expires: Date;
  /** R4: the OpenPGP signer of a patchset's index. Throws PATCHSET_UNSIGNED, and what {@link openState} may throw then. */
  readonly signerOf: (index: Buffer, signature: Buffer, patchset: string) => Promise<string>;
  /** Absent: offline. */
  readonly fetcher?: FeedFetcher;
  readonly select: SelectPatchset | undefined;
  /** Default U. */
  readonly kind: PatchsetKind | undefined;
}

/** Opens the chosen patchset of verified metadata. Throws PATCHSET_UNKNOWN, PATCHSET_UNSIGNED, FEED_MISMATCH and others. */
export async function openState(source: StateSource): Promise<FeedState> {
  const cachedPath = ({ sha256 }: PatchEntry): string => targetPath(source.cache, sha256);
  const common = { prefix: source.prefix, expires: source.expires.toISOString(), cachedPath };
  const empty = { ...common, patchset: undefined, patches: [], signedBy: undefined };
  const none = (): Promise<undefined> => Promise.resolve(undefined);
  const listed = parseFeedList(await loadTarget(source, feedListPath, limits.feedList));
  const patchsets = listed.filter((one) => isOfKind(source.kind ?? 'U', one));
  const usable = source.fetcher === undefined ? await cachedOnes(source, patchsets) : patchsets;
  const patchset = source.select === undefined ? usable.at(-1)?.name : source.select(usable);
  if (patchset === undefined) return { ...empty, patchsets, patchFor: none };
  if (!patchsets.some(({ name }) => name === patchset)) {
    throw new KcareError('PATCHSET_UNKNOWN', `The feed "${source.prefix}" has no patchset ${patchset}.`);
  }
  const path = patchsetPath(patchset);
  const index = await loadTarget(source, path, limits.patchsetIndex);
  const signature = await loadTarget(source, `${path}.asc`, limits.signature, 'PATCHSET_UNSIGNED');
  // R4: both signatures hold before a byte of the index is parsed.
  const signedBy = await source.signerOf(index, signature, patchset);
  const { patches } = parsePatchsetIndex(index, patchset);
  for (const entry of patches) sameInBoth(source, entry);
  const patchFor = async (buildId: string): Promise<VerifiedPatchFile | undefined> => {
    const entry = patches.find((one) => one.buildId === buildId);
    if (entry === undefined) return undefined;
    const bytes = await loadTarget(source, entry.file, limits.patch);
    return { bytes, sha256: entry.sha256, buildId, level: entry.level, patchset };
  };
  return { ...common, patchset, patchsets, patches, signedBy, patchFor };
}

/** Offline one can only choose among the patchsets whose index was downloaded before. */
async function cachedOnes(
  source: StateSource,
  patchsets: readonly ReleasedPatchset[],
): Promise<readonly ReleasedPatchset[]> {
  const cached: ReleasedPatchset[] = [];
  for (const one of patchsets) {
    const target = findTarget(source, patchsetPath(one.name));
    const bytes =
      target && (await readCachedTarget(source.cache, target.hashes['sha256'] ?? '', target.length));
    if (bytes !== undefined) cached.push(one);
  }
  if (cached.length === 0 && patchsets.length > 0) {
    throw new KcareError('FEED_NOT_CACHED', 'No patchset of the feed is in the cache.');
  }
  return cached;
}

/** The index (OpenPGP) and the metadata (role keys) must name the same bytes: no mix and match. */
function sameInBoth(source: StateSource, entry: PatchEntry): void {
  const target = findTarget(source, entry.file);
  if (target?.hashes['sha256'] === entry.sha256 && target.length === entry.size) return;
  throw new KcareError(
    'FEED_MISMATCH',
    `The patchset and the metadata of the feed name different contents for ${entry.file}.`,
  );
}

function findTarget({ targets }: StateSource, path: string): ListedTarget | undefined {
  return Object.hasOwn(targets, path) ? targets[path] : undefined;
}

/** A target from the cache or the server; returned only when length and SHA-256 are those of the metadata (R4). */
async function loadTarget(
  source: StateSource,
  path: string,
  maxLength: number,
  missing: 'FEED_MISMATCH' | 'PATCHSET_UNSIGNED' = 'FEED_MISMATCH',
): Promise<Buffer> {
  const target = findTarget(source, path);
  if (target === undefined) throw new KcareError(missing, `The feed does not list ${path}.`);
  const sha256 = target.hashes['sha256'] ?? '';
  if (!/^[0-9a-f]{64}$/.test(sha256)) throw new KcareError('FEED_MALFORMED', `${path} has no SHA-256.`);
  if (target.length > maxLength) {
    throw new KcareError('FEED_MISMATCH', `${path} is ${target.length} bytes long, more than is accepted.`);
  }
  const cached = await readCachedTarget(source.cache, sha256, target.length);
  if (cached !== undefined) return cached;
  if (source.fetcher === undefined) throw new KcareError('FEED_NOT_CACHED', `${path} is not in the cache.`);
  const url = new URL(`targets/${hashedPath(path, sha256)}`, source.base).href;
  let bytes: Buffer;
  try {
    bytes = await source.fetcher.downloadBytes(url, target.length);
  } catch (error) {
    throw asFeedError(error, withoutPassword(url));
  }
  const found = createHash('sha256').update(bytes).digest('hex');
  if (bytes.length !== target.length || found !== sha256) {
    throw new KcareError(
      'FEED_MISMATCH',
      `${withoutPassword(url)} is not what the metadata announces (${bytes.length} of ${target.length} bytes, SHA-256 ${found}).`,
    );
  }
  await writeCachedTarget(source.cache, sha256, bytes);
  return bytes;
}
