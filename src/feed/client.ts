// Verification of a whole feed: refresh its metadata, verify it from the imported keys on, open the chosen patchset.
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
import { type FeedFetcher, serverUrl, withoutPassword } from './fetcher.js';
import { requireKeys } from './keyring.js';
import { feedPrefix, limits } from './names.js';
import { writeAtomically } from '../base/safe-files.js';
import { firstExpiry, verifyDetached } from './openpgp.js';
import { type FeedState, openState } from './state.js';
import type { FeedOptions, UpdateOptions } from './update.js';
import { type KeyFile, type Verdict, digestOf, longestVerdictMs, sha256Of, writeVerdict } from './verdict.js';
import { type RootChain, type StoredMetadata, verifyMetadata, verifyRootChain } from './verify.js';

export interface CachedOptions extends FeedOptions {
  /** Accept metadata that has expired: for showing what is known, not for applying it. */
  readonly allowExpired?: boolean;
}

/**
 * Refreshes the cached feed from its server and verifies all of it (R4). All or nothing: after any error the cache holds
 * the state it held before, which {@link cachedFeed} opens. Throws as updateFeed.
 */
export async function verifyFeed(options: UpdateOptions, fetcher: FeedFetcher): Promise<FeedState> {
  const place = await openPlace(options);
  const staging = await newGeneration(place.cache);
  try {
    const previous = await currentGeneration(place.cache);
    const known = await trustedRoots(place, fetcher, previous);
    if (previous !== undefined) await inheritMetadata(previous, staging);
    const chain = await refresh(place, fetcher, staging, known);
    const root = await verifyRootChain(chain, place.keys, place.prefix);
    const stored = await readStoredMetadata(staging);
    const { targets, expires } = verifyMetadata(root, stored, false);
    const indexes: SignedIndex[] = [];
    const state = await openState({
      ...place,
      targets: targets.targets,
      expires,
      fetcher,
      select: options.select,
      kind: options.kind,
      signerOf: async (index, signature, patchset) => {
        const signedBy = await signerOf(place, index, signature, patchset);
        indexes.push({ index, signature, signedBy });
        return signedBy;
      },
    });
    await writeVerdict(staging, await verdictOf(place, chain, stored, expires, indexes));
    await activateGeneration(place.cache, staging);
    const hashes = Object.values(targets.targets).map((target) => target.hashes['sha256'] ?? '');
    await tidyCache(place.cache, new Set(hashes));
    return state;
  } catch (error) {
    await dropGeneration(staging);
    throw asKcareError(error);
  }
}

interface SignedIndex {
  readonly index: Buffer;
  readonly signature: Buffer;
  readonly signedBy: string;
}

async function signerOf(
  { keys }: Place,
  index: Buffer,
  signature: Buffer,
  patchset: string,
): Promise<string> {
  return await verifyDetached(index, signature, keys, `Patchset ${patchset}`, 'PATCHSET_UNSIGNED');
}

async function verdictOf(
  { prefix, keys, keyFiles }: Place,
  chain: RootChain,
  stored: StoredMetadata,
  expires: Date,
  indexes: readonly SignedIndex[],
): Promise<Verdict> {
  const now = new Date();
  const signatures = [chain.signature, ...indexes.map(({ signature }) => signature)];
  const until = Math.min(
    expires.getTime(),
    await firstExpiry(keys, signatures, now),
    now.getTime() + longestVerdictMs,
  );
  return {
    version: 1,
    from: now.getTime(),
    until,
    expires: expires.getTime(),
    digest: digestOf(prefix, keyFiles, chain, stored),
    indexes: indexes.map(({ index, signature, signedBy }) => ({
      index: sha256Of(index),
      signature: sha256Of(signature),
      signedBy,
    })),
  };
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
    const { targets, expires } = verifyMetadata(root, stored, options.allowExpired ?? false);
    return await openState({
      ...place,
      targets: targets.targets,
      expires,
      select: options.select,
      kind: options.kind,
      signerOf: (...signed) => signerOf(place, ...signed),
    });
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
  readonly keyFiles: readonly KeyFile[];
}

async function openPlace(options: FeedOptions): Promise<Place> {
  const prefix = feedPrefix(options.prefix);
  const server = serverUrl(options.server);
  const { keys, files } = await requireKeys(options.keyDirectory);
  const cache = await openCache(options.cacheDirectory, withoutPassword(server.href), prefix);
  return { base: new URL(`${prefix}/`, server), prefix, cache, keys, keyFiles: files };
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
