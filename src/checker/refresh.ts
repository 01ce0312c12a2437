// Fetches what is new of the feed before a scan, as an update would, and applies nothing.
import type { Settings } from '../agent/agent.js';
import { refreshFeed } from '../agent/patch-source.js';
import { withLock } from '../agent/lock.js';
import { asKcareError, type KcareError } from '../base/errors.js';
import { knownFixes, readKnownFixes, type FeedKnowledge } from './known-fixes.js';

const lockWaitMs = 30_000;

/** When the server cannot be asked, `problem` says why, and what is cached counts. Throws CONFIG_INVALID, UNSAFE_MODE, LOCK_HELD. */
export async function refreshKnownFixes(
  settings: Settings,
): Promise<{ readonly feed: FeedKnowledge; readonly problem?: KcareError }> {
  try {
    const lock = { command: 'kcare-uchecker --refresh', waitMs: lockWaitMs };
    const state = await withLock(settings.paths.lock, lock, () => refreshFeed(settings));
    return { feed: { state: 'known', fixes: knownFixes(state) } };
  } catch (thrown) {
    const problem = asKcareError(thrown);
    if (problem.code === 'INTERNAL') throw problem;
    const feed = await readKnownFixes(settings);
    return feed.state === 'unavailable'
      ? { feed: { state: 'unavailable', error: problem } }
      : { feed, problem };
  }
}
