// Where an update takes its patches from: the patch server, or the verified cache, as UPDATE_POLICY says.
import { KcareError, namingFullDisk } from '../base/errors.js';
import type { PatchToApply } from '../engine/index.js';
import type { FeedState, SelectPatchset } from '../feed/index.js';
import type { FeedOptions } from '../feed/update.js';
import type { Discovery } from '../host/index.js';
import { readPatch } from '../patchfile/index.js';
import type { Settings } from './agent.js';
import { patchsetSelection, type UpdateMode } from './selection.js';
import { userAgent } from './version.js';

export interface SourceOptions {
  /** `server`: always ask it (default). `policy`: what UPDATE_POLICY says, as at boot. */
  readonly source?: 'server' | 'policy' | undefined;
  /** `auto`: the AUTO_ forms of keys count. Default `manual`. */
  readonly mode?: UpdateMode | undefined;
}

export interface ChosenPatches {
  /** Undefined when there is none for this host. */
  readonly patchset: string | undefined;
  readonly discovery: Discovery;
  /** The patches for the objects in use, by build-id. */
  readonly patches: ReadonlyMap<string, PatchToApply>;
  readonly warnings: readonly string[];
}

/** Finds the processes that run objects with these build-ids. */
type Discover = (isPatched: (buildId: string) => boolean) => Discovery;

const feedTimeoutMs = 30_000;
const nobody: Discovery = { processes: [], unreadable: [] };

/**
 * Chooses the patchset and gets the patches that processes need. One that cannot be fetched or read stops the run before
 * any process is touched; with UPDATE_POLICY=LOCAL, one that is not cached is left out, with a warning. Throws the errors
 * of the feed, CONFIG_INVALID, PATCH_MALFORMED.
 */
export async function choosePatches(
  settings: Settings,
  options: SourceOptions,
  discover: Discover,
): Promise<ChosenPatches> {
  const policy = options.source === 'policy' ? settings.config.updatePolicy : 'REMOTE';
  const choose = (feed: FeedState, mayMiss: boolean): Promise<ChosenPatches> =>
    namingFullDisk(settings.paths.cache, () => chosenFrom(feed, discover, mayMiss));
  if (policy === 'REMOTE') return await choose(await refreshFeed(settings, options), false);
  try {
    return await choose(await cachedFeed(settings, options), policy === 'LOCAL');
  } catch (thrown) {
    if (!(thrown instanceof KcareError)) throw thrown;
    if (policy === 'LOCAL') return nothingCached(thrown);
    // LOCAL_FIRST: what the cache cannot give, or what no longer counts there, is asked of the server.
    if (!/^(FEED|PATCHSET)_/.test(thrown.code)) throw thrown;
    return await choose(await refreshFeed(settings, options), false);
  }
}

function nothingCached(error: KcareError): ChosenPatches {
  if (error.code !== 'FEED_NOT_CACHED') throw error;
  const text = `UPDATE_POLICY is LOCAL, and nothing is done: ${error.message}`;
  return { patchset: undefined, discovery: nobody, patches: new Map(), warnings: [text] };
}

async function chosenFrom(feed: FeedState, discover: Discover, mayMiss: boolean): Promise<ChosenPatches> {
  const patched = new Set(feed.patches.map(({ buildId }) => buildId));
  const discovery = discover((buildId) => patched.has(buildId));
  const buildIds = discovery.processes.flatMap(({ objects }) => objects.map(({ buildId }) => buildId));
  const patches = new Map<string, PatchToApply>();
  const warnings: string[] = [];
  for (const buildId of new Set(buildIds)) {
    try {
      const patch = await fetchPatch(feed, buildId);
      if (patch) patches.set(buildId, patch);
    } catch (thrown) {
      if (!mayMiss || !(thrown instanceof KcareError) || thrown.code !== 'FEED_NOT_CACHED') throw thrown;
      warnings.push(`UPDATE_POLICY is LOCAL, and the patch for ${buildId} is not in the cache.`);
    }
  }
  return { patchset: feed.patchset, discovery, patches, warnings };
}

async function fetchPatch(feed: FeedState, buildId: string): Promise<PatchToApply | undefined> {
  // R4: patchFor returns only bytes whose signatures hold.
  const file = await feed.patchFor(buildId);
  if (!file) return undefined;
  const patch = readPatch(file.bytes);
  // R3
  if (patch.buildId !== buildId) {
    const text = `The feed's patch for ${buildId} is made for ${patch.buildId}.`;
    throw new KcareError('BUILD_ID_MISMATCH', text, { buildId });
  }
  return { patch, patchset: file.patchset, sha256: file.sha256 };
}

/**
 * Fetches what is new of the feed; `select` instead of what the config allows. Throws the errors of updateFeed,
 * CONFIG_INVALID. The caller holds the lock.
 */
export async function refreshFeed(
  settings: Settings,
  options: SourceOptions = {},
  select?: SelectPatchset,
): Promise<FeedState> {
  const { paths, config } = settings;
  const feed = { ...feedOptions(settings, options), ...(select && { select }) };
  // Not by the layer's index: an unchanged feed needs neither OpenPGP nor The Update Framework.
  const { updateFeed } = await import('../feed/update.js');
  return await namingFullDisk(paths.cache, () =>
    updateFeed({
      ...feed,
      proxy: {
        ...(config.httpProxy !== undefined && { http: config.httpProxy }),
        ...(config.httpsProxy !== undefined && { https: config.httpsProxy }),
      },
      timeoutMs: feedTimeoutMs,
      userAgent: userAgent(),
    }),
  );
}

async function cachedFeed(settings: Settings, options: SourceOptions): Promise<FeedState> {
  const feed = feedOptions(settings, options);
  const { openCachedFeed } = await import('../feed/update.js');
  // R4: expired metadata is not for applying.
  return await openCachedFeed({ ...feed, allowExpired: false });
}

/** What feed the config names. Throws CONFIG_INVALID. */
export function feedOptions({ paths, config }: Settings, { mode }: SourceOptions = {}): FeedOptions {
  if (config.patchServer === undefined) {
    throw new KcareError(
      'CONFIG_INVALID',
      `PATCH_SERVER is not set in ${paths.config}, so there is nowhere to get patches from.`,
    );
  }
  return {
    server: config.patchServer,
    cacheDirectory: paths.cache,
    keyDirectory: paths.keys,
    select: patchsetSelection(config, new Date(), mode),
    ...(config.prefix !== undefined && { prefix: config.prefix }),
  };
}
