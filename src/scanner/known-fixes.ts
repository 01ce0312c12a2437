// What the verified feed says is fixed by patches: the one source of claims about vulnerabilities.
import { cachedFeedOf } from '../agent/known-patches.js';
import type { Agent } from '../agent/index.js';
import type { KcareError } from '../base/errors.js';
import type { PatchEntry } from '../feed/index.js';

export interface KnownFixes {
  /** The patchset that this host follows; undefined when no feed is cached, or none of its patchsets is allowed. */
  readonly patchset: string | undefined;
  /** Patches by the build-id of their object. */
  readonly byBuildId: ReadonlyMap<string, PatchEntry>;
  /** ISO 8601 times; undefined when no feed is cached. */
  readonly expires: string | undefined;
  readonly confirmed: Date | undefined;
  /** Why a cached feed cannot be used (R4, R10); absent when there is none, or it can. */
  readonly problem?: KcareError;
}

/** Reads the cached feed, without any network. Where no feed can be trusted, nothing is known (R6). */
export async function knownFixes(agent: Agent): Promise<KnownFixes> {
  const { feed, problem } = await cachedFeedOf(agent);
  if (!feed) {
    const nothing = { patchset: undefined, byBuildId: new Map(), expires: undefined, confirmed: undefined };
    return problem?.code === 'FEED_NOT_CACHED' ? nothing : { ...nothing, ...(problem && { problem }) };
  }
  const { patchset, patches, expires } = feed;
  const byBuildId = new Map(patches.map((entry) => [entry.buildId, entry]));
  return { patchset, byBuildId, expires, confirmed: await confirmed(agent) };
}

async function confirmed({ paths, config }: Agent): Promise<Date | undefined> {
  if (config.patchServer === undefined) return undefined;
  const { feedConfirmed } = await import('../feed/update.js');
  return await feedConfirmed({
    server: config.patchServer,
    cacheDirectory: paths.cache,
    keyDirectory: paths.keys,
    ...(config.prefix !== undefined && { prefix: config.prefix }),
  });
}
