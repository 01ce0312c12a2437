// What this host could patch, by the verified cache of its feed, and what is in its processes; without any network.
import { existsSync } from 'node:fs';
import { KcareError } from '../base/errors.js';
import type { FeedState } from '../feed/index.js';
import {
  readOutcomes,
  surveyCoverage,
  type KnownPatches,
  type ProcessCoverage,
  type UnreadableProcess,
} from '../host/index.js';
import { openBlacklist, readSettings, type Settings } from './agent.js';
import { isLibcareEnabled } from './libcare-state.js';
import { patchsetSelection } from './selection.js';

export interface LibraryCoverage {
  readonly processes: readonly ProcessCoverage[];
  readonly unreadable: readonly UnreadableProcess[];
  /** Undefined when nothing is known of the feed; then only patched processes are listed. */
  readonly known: KnownPatches | undefined;
  /** Why nothing is known, or why what is known may be old. */
  readonly problem: KcareError | undefined;
  readonly warnings: readonly string[];
}

/** Judges all processes, or `pids`, by the cached feed. Throws USAGE, CONFIG_INVALID, UNSAFE_MODE (R10). */
export async function libraryCoverage(
  root: string,
  { pids }: { readonly pids?: readonly number[] | undefined } = {},
): Promise<LibraryCoverage> {
  const settings = await readSettings(root);
  const { feed, problem } = await cachedFeedOf(settings);
  const known = feed && knownPatches(feed);
  const { blacklist, warnings } = await openBlacklist(settings.paths);
  const outcomes = await readOutcomes(settings.paths.outcomes);
  const heldBack = (await isLibcareEnabled(settings.paths))
    ? undefined
    : 'LibCare is turned off on this host.';
  const survey = surveyCoverage({ pids, known, blacklist, outcomes, heldBack });
  return { ...survey, known, problem, warnings: [...settings.warnings, ...warnings] };
}

/** Undefined when the feed offers this host no patchset. */
export function knownPatches({ patchset, patchsets, patches }: FeedState): KnownPatches | undefined {
  if (patchset === undefined) return undefined;
  const released = patchsets.find(({ name }) => name === patchset)?.released;
  return {
    patchset,
    released: released === undefined ? undefined : new Date(released),
    patches: patches.map(({ buildId, level, objectName }) => ({ buildId, level, objectName })),
  };
}

/** The feed as it was last verified, with the patchset that the config allows. What stands in the way is in `problem`. */
export async function cachedFeedOf({ paths, config }: Settings): Promise<{
  readonly feed?: FeedState;
  readonly problem: KcareError | undefined;
}> {
  if (config.patchServer === undefined || !existsSync(paths.cache)) {
    const text = 'No feed was fetched yet, so that it is not known which processes could be patched.';
    return { problem: new KcareError('FEED_NOT_CACHED', text) };
  }
  try {
    const { openCachedFeed } = await import('../feed/update.js');
    const now = new Date();
    const feed = await openCachedFeed({
      server: config.patchServer,
      cacheDirectory: paths.cache,
      keyDirectory: paths.keys,
      allowExpired: true,
      select: patchsetSelection(config, now),
      ...(config.prefix !== undefined && { prefix: config.prefix }),
    });
    const isExpired = Date.parse(feed.expires) <= now.getTime();
    const text = `What is known of the feed expired at ${feed.expires}.`;
    return { feed, problem: isExpired ? new KcareError('FEED_EXPIRED', text) : undefined };
  } catch (thrown) {
    if (!(thrown instanceof KcareError) || thrown.code === 'INTERNAL') throw thrown;
    return { problem: thrown };
  }
}
