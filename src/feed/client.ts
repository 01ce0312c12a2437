// The feed as an agent uses it: refresh and verify metadata, choose a patchset, hand out verified patches.
import { join } from 'node:path';
import type { Key } from 'openpgp';
import { Updater } from 'tuf-js';
import { KcareError, asKcareError } from '../base/errors.js';
import {
  type FeedCache,
  activateGeneration,
  currentGeneration,
  dropGeneration,
  inheritMetadata,
  newGeneration,
  openCache,
  readRootChain,
  readStoredMetadata,
  tidyCache,
  writeRootChain,
} from './cache.js';
import { explainRefresh } from './explain.js';
import { asFeedError } from './failures.js';
import { FeedFetcher, type ProxySettings, serverUrl, withoutPassword } from './fetcher.js';
import { requireKeys } from './keyring.js';
import { feedPrefix, limits } from './names.js';
import { writeAtomically } from './safe-files.js';
import { type FeedState, type SelectPatchset, openState } from './state.js';
import { type RootChain, verifyMetadata, verifyRootChain } from './verify.js';

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
}

export interface UpdateOptions extends FeedOptions {
  readonly proxy?: ProxySettings;
  /** Longest time for one file in milliseconds; default 30 000. */
  readonly timeoutMs?: number;
  readonly userAgent?: string;
  /** Further attempts for one file; default 2. */
  readonly retries?: number;
}

export interface CachedOptions extends FeedOptions {
  /** Accept metadata that has expired: for showing what is known, not for applying it. */
  readonly allowExpired?: boolean;
}

/**
 * Refreshes the cached feed from its server and verifies all of it (R4). All or nothing: after any error the cache holds
 * the state it held before, which {@link cachedFeed} opens. Throws the FEED_ and PATCHSET_ errors, UNSAFE_MODE, NO_SPACE.
 * The caller holds the agent's lock: one process at a time changes a cache.
 */
export async function updateFeed(options: UpdateOptions): Promise<FeedState> {
  const place = await openPlace(options);
  const fetcher = new FeedFetcher({
    timeoutMs: options.timeoutMs ?? 30_000,
    userAgent: options.userAgent ?? 'kcare',
    ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
    ...(options.retries === undefined ? {} : { retries: options.retries }),
  });
  const staging = await newGeneration(place.cache);
  try {
    const previous = await currentGeneration(place.cache);
    const known = await trustedRoots(place, fetcher, previous);
    if (previous !== undefined) await inheritMetadata(previous, staging);
    const chain = await refresh(place, fetcher, staging, known);
    const root = await verifyRootChain(chain, place.keys, place.prefix);
    const verified = verifyMetadata(root, await readStoredMetadata(staging), false);
    const state = await openState({ ...place, ...verified, fetcher, select: options.select });
    await activateGeneration(place.cache, staging);
    const hashes = Object.values(verified.targets.targets).map((target) => target.hashes['sha256'] ?? '');
    await tidyCache(place.cache, new Set(hashes));
    return state;
  } catch (error) {
    await dropGeneration(staging);
    throw asKcareError(error);
  }
}

/**
 * Opens the cached feed without any network, verifying all stored data again: keys removed since then no longer count,
 * damaged files are refused. Throws FEED_NOT_CACHED, FEED_EXPIRED (unless `allowExpired`) and the errors of updateFeed.
 */
export async function cachedFeed(options: CachedOptions): Promise<FeedState> {
  const place = await openPlace(options);
  const generation = await currentGeneration(place.cache);
  if (generation === undefined) {
    throw new KcareError(
      'FEED_NOT_CACHED',
      `Nothing of the feed ${withoutPassword(place.base.href)} is cached.`,
    );
  }
  try {
    const root = await verifyRootChain(await readRootChain(generation), place.keys, place.prefix);
    const stored = await readStoredMetadata(generation);
    const verified = verifyMetadata(root, stored, options.allowExpired ?? false);
    return await openState({ ...place, ...verified, select: options.select });
  } catch (error) {
    const failure = asKcareError(error);
    if (failure.code !== 'FILE_MISSING') throw failure;
    throw new KcareError('FEED_NOT_CACHED', 'The cache is not complete.', {}, { cause: error });
  }
}

interface Place {
  /** `<PATCH_SERVER>/<prefix>/`. */
  readonly base: URL;
  readonly prefix: string;
  readonly cache: FeedCache;
  readonly keys: readonly Key[];
}

async function openPlace(options: FeedOptions): Promise<Place> {
  const prefix = feedPrefix(options.prefix);
  const server = serverUrl(options.server);
  const keys = await requireKeys(options.keyDirectory);
  const cache = await openCache(options.cacheDirectory, withoutPassword(server.href), prefix);
  return { base: new URL(`${prefix}/`, server), prefix, cache, keys };
}

/** The roots verified before, or (first use, or a damaged cache) the first root with its OpenPGP signature. */
async function trustedRoots(place: Place, fetcher: FeedFetcher, previous?: string): Promise<RootChain> {
  if (previous !== undefined) {
    try {
      const chain = await readRootChain(previous);
      await verifyRootChain(chain, place.keys, place.prefix);
      return chain;
    } catch (error) {
      if (error instanceof KcareError && error.code === 'UNSAFE_MODE') throw error;
      // Nothing is lost: the first root is verified anew with the imported keys, as on the first day.
    }
  }
  const first = new URL('metadata/1.root.json', place.base).href;
  try {
    const signature = await fetcher.downloadBytes(`${first}.asc`, limits.signature);
    const chain = { roots: [await fetcher.downloadBytes(first, limits.root)], signature };
    await verifyRootChain(chain, place.keys, place.prefix);
    return chain;
  } catch (error) {
    throw asFeedError(error, `${withoutPassword(first)} (the start of the feed)`);
  }
}

/** Runs the client workflow of The Update Framework in `staging`; returns the roots up to the newest. */
async function refresh(
  place: Place,
  fetcher: FeedFetcher,
  staging: string,
  known: RootChain,
): Promise<RootChain> {
  const metadataUrl = new URL('metadata', place.base).href;
  const newest = known.roots.at(-1) ?? Buffer.alloc(0);
  await writeAtomically(join(staging, 'root.json'), newest);
  try {
    const updater = new Updater({
      metadataDir: staging,
      metadataBaseUrl: metadataUrl,
      fetcher,
      config: {
        rootMaxLength: limits.root,
        timestampMaxLength: limits.timestamp,
        snapshotMaxLength: limits.snapshot,
        targetsMaxLength: limits.targets,
      },
    });
    await updater.refresh();
  } catch (error) {
    throw await explainRefresh(error, fetcher, staging, metadataUrl);
  }
  const roots = [...known.roots];
  for (;;) {
    const next = fetcher.fetched.get(`${metadataUrl}/${roots.length + 1}.root.json`);
    if (next === undefined) break;
    roots.push(next);
  }
  const chain = { roots, signature: known.signature };
  await writeRootChain(staging, chain);
  return chain;
}
