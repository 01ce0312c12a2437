// The feed as an agent follows it. What verifies a feed is loaded only when something of it is new.
import { KcareError } from '../base/errors.js';
import { dictionary, integer, record, text } from '../base/shapes.js';
import {
  type FeedCache,
  confirmedAt,
  confirmGeneration,
  currentGeneration,
  openCache,
  readRootChain,
  readStoredMetadata,
} from './cache.js';
import { asFeedError } from './failures.js';
import { FeedFetcher, isAbsent, type ProxySettings, serverUrl, withoutPassword } from './fetcher.js';
import { readKeyFiles } from './key-files.js';
import { feedPrefix, limits, type PatchsetKind } from './names.js';
import { parseJson } from './schema.js';
import { type FeedState, type ListedTargets, type SelectPatchset, openState } from './state.js';
import { type Verdict, digestOf, readVerdict, sha256Of } from './verdict.js';
import type { RootChain, StoredMetadata } from './verify.js';

export interface FeedOptions {
  /** PATCH_SERVER: http(s) or file URL, or a path. */
  readonly server: string;
  /** PREFIX; default "main". */
  readonly prefix?: string;
  readonly cacheDirectory: string;
  /** The imported OpenPGP keys (see importKey). */
  readonly keyDirectory: string;
  /** Chooses a patchset of the feed; default the newest. */
  readonly select?: SelectPatchset;
  /** Default U. */
  readonly kind?: PatchsetKind;
}

export interface UpdateOptions extends FeedOptions {
  readonly proxy?: ProxySettings;
  /** Longest time for one file in milliseconds; default 30 000. */
  readonly timeoutMs?: number;
  readonly userAgent?: string;
  /** Further attempts for one file; default 2. */
  readonly retries?: number;
}

/**
 * Brings the cached feed to the state of its server. All of it is verified (R4), or is byte by byte what was verified
 * before, by the same keys, within the time for which that counts. All or nothing: after any error the cache holds the
 * state it held before. Throws the FEED_ and PATCHSET_ errors, UNSAFE_MODE, NO_SPACE. The caller holds the agent's
 * lock: one process at a time changes a cache.
 */
export async function updateFeed(options: UpdateOptions): Promise<FeedState> {
  const fetcher = new FeedFetcher({
    timeoutMs: options.timeoutMs ?? 30_000,
    userAgent: options.userAgent ?? 'kcare',
    ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
    ...(options.retries === undefined ? {} : { retries: options.retries }),
  });
  const known = await knownFeed(options);
  if (known && (await isUnchanged(known, fetcher))) {
    const state = await openKnown(known, options, fetcher);
    if (state) {
      await confirmGeneration(known.generation);
      return state;
    }
  }
  const { verifyFeed } = await import('./client.js');
  return await verifyFeed(options, fetcher);
}

/**
 * Opens the cached feed without any network: by what was verified before where that still counts, else verified again
 * (see cachedFeed). Throws FEED_NOT_CACHED, FEED_EXPIRED (unless `allowExpired`, which is for showing what is known) and
 * the errors of updateFeed.
 */
export async function openCachedFeed(
  options: FeedOptions & { readonly allowExpired: boolean },
): Promise<FeedState> {
  const known = await knownFeed(options);
  const state = known && (await openKnown(known, options));
  if (state) return state;
  const { cachedFeed } = await import('./client.js');
  return await cachedFeed(options);
}

/** When the cached metadata was last fetched or found unchanged on its server; undefined when nothing is cached. */
export async function feedConfirmed(options: FeedOptions): Promise<Date | undefined> {
  const server = withoutPassword(serverUrl(options.server).href);
  const cache = await openCache(options.cacheDirectory, server, feedPrefix(options.prefix));
  const generation = await currentGeneration(cache);
  return generation === undefined ? undefined : await confirmedAt(generation);
}

/** A feed of which everything in the cache was verified, and that verdict still counts. */
interface KnownFeed {
  readonly base: URL;
  readonly prefix: string;
  readonly cache: FeedCache;
  readonly generation: string;
  readonly chain: RootChain;
  readonly stored: StoredMetadata;
  readonly verdict: Verdict;
}

/** Throws USAGE, UNSAFE_MODE (R10). */
async function knownFeed(options: FeedOptions): Promise<KnownFeed | undefined> {
  const prefix = feedPrefix(options.prefix);
  const server = serverUrl(options.server);
  const keys = await readKeyFiles(options.keyDirectory);
  const cache = await openCache(options.cacheDirectory, withoutPassword(server.href), prefix);
  const generation = await currentGeneration(cache);
  const verdict = generation === undefined ? undefined : await readVerdict(generation, Date.now());
  if (generation === undefined || verdict === undefined) return undefined;
  try {
    const [chain, stored] = [await readRootChain(generation), await readStoredMetadata(generation)];
    if (digestOf(prefix, keys, chain, stored) !== verdict.digest) return undefined;
    return { base: new URL(`${prefix}/`, server), prefix, cache, generation, chain, stored, verdict };
  } catch (error) {
    if (error instanceof KcareError && error.code === 'UNSAFE_MODE') throw error;
    return undefined;
  }
}

/**
 * The first questions of the client workflow of The Update Framework (5.3, 5.4): there is no newer root, and the
 * timestamp is the one that is known. Then nothing else is asked for. Throws FEED_UNREACHABLE, FEED_MISMATCH.
 */
async function isUnchanged({ base, chain, stored }: KnownFeed, fetcher: FeedFetcher): Promise<boolean> {
  const metadata = new URL('metadata', base).href;
  try {
    if (!(await isRootMissing(`${metadata}/${chain.roots.length + 1}.root.json`, fetcher))) return false;
    return stored.timestamp.equals(
      await fetcher.downloadBytes(`${metadata}/timestamp.json`, limits.timestamp),
    );
  } catch (error) {
    throw asFeedError(error, withoutPassword(metadata));
  }
}

async function isRootMissing(url: string, fetcher: FeedFetcher): Promise<boolean> {
  try {
    await fetcher.downloadBytes(url, limits.root);
    return false;
  } catch (error) {
    if (isAbsent(error)) return true;
    throw error;
  }
}

/** Undefined when it takes a verification: for a patchset that was not chosen before, or a damaged cache. */
async function openKnown(
  { base, prefix, cache, stored, verdict }: KnownFeed,
  { select, kind }: FeedOptions,
  fetcher?: FeedFetcher,
): Promise<FeedState | undefined> {
  const signing = { isKnown: true };
  const expires = new Date(verdict.expires);
  try {
    const signerOf = (index: Buffer, signature: Buffer): Promise<string> => {
      const [indexHash, signatureHash] = [sha256Of(index), sha256Of(signature)];
      const known = verdict.indexes.find((one) => one.index === indexHash && one.signature === signatureHash);
      signing.isKnown = known !== undefined;
      return known
        ? Promise.resolve(known.signedBy)
        : Promise.reject(new KcareError('PATCHSET_UNSIGNED', 'This signature was not verified yet.'));
    };
    const targets = listedTargets(stored.targets);
    return await openState({
      ...{ base, prefix, cache, targets, expires, select, kind, signerOf },
      ...(fetcher && { fetcher }),
    });
  } catch (error) {
    if (!signing.isKnown) return undefined;
    throw error;
  }
}

const targetsShape = record({
  signed: record({
    targets: dictionary(record({ length: integer(0), hashes: dictionary(text()) })),
  }),
});

/** What verified metadata lists. Throws FEED_MALFORMED. */
function listedTargets(bytes: Buffer): ListedTargets {
  return targetsShape(parseJson(bytes, 'targets.json')).signed.targets;
}
