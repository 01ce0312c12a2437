// Whether anything of a feed is cached: for commands that look and make nothing.
import { hasCache } from './cache.js';
import { serverUrl, withoutPassword } from './fetcher.js';
import { feedPrefix } from './names.js';
import type { FeedOptions } from './update.js';

/** Throws USAGE when the options name no feed. */
export function hasCachedFeed({ server, prefix, cacheDirectory }: FeedOptions): boolean {
  return hasCache(cacheDirectory, withoutPassword(serverUrl(server).href), feedPrefix(prefix));
}
