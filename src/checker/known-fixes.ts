// What the feed knows: which build-ids have a fix, at which level. Read from the verified cache, or from the server when asked.
import { asKcareError, KcareError } from '../base/errors.js';
import type { Settings } from '../agent/agent.js';
import { feedOptions } from '../agent/patch-source.js';
import { hasCachedFeed } from '../feed/cached.js';
import type { FeedState, PatchEntry } from '../feed/index.js';
import { openCachedFeed } from '../feed/update.js';

export interface KnownFixes {
  readonly patchset: string | undefined;
  /** ISO 8601 time. */
  readonly expires: string;
  /** By build-id. */
  readonly byBuildId: ReadonlyMap<string, PatchEntry>;
}

/** What was learned of the feed, or why nothing was. */
export type FeedKnowledge =
  | { readonly state: 'known'; readonly fixes: KnownFixes }
  /** Nothing was asked of it. */
  | { readonly state: 'left-out' }
  | { readonly state: 'unavailable'; readonly error: KcareError };

export function knownFixes({ patchset, expires, patches }: FeedState): KnownFixes {
  return { patchset, expires, byBuildId: new Map(patches.map((entry) => [entry.buildId, entry])) };
}

/** Build-ids beyond this level are fixed in no way that the feed knows. */
export function fixFor(feed: FeedKnowledge, buildId: string | undefined): PatchEntry | undefined {
  return feed.state === 'known' && buildId !== undefined ? feed.fixes.byBuildId.get(buildId) : undefined;
}

/** What the verified cache holds, without any network; makes nothing and changes nothing. Throws INTERNAL only. */
export async function readKnownFixes(settings: Settings): Promise<FeedKnowledge> {
  try {
    const options = feedOptions(settings);
    if (!hasCachedFeed(options))
      throw new KcareError('FEED_NOT_CACHED', 'The feed was never fetched: no fix is known.');
    return { state: 'known', fixes: knownFixes(await openCachedFeed({ ...options, allowExpired: true })) };
  } catch (thrown) {
    const error = asKcareError(thrown);
    if (error.code === 'INTERNAL') throw error;
    return { state: 'unavailable', error };
  }
}
