// --lib-update and --lib-unload: the feed, the blacklist and all processes brought together under one lock.
import { dirname } from 'node:path';
import { asKcareError, KcareError, namingFullDisk } from '../base/errors.js';
import type { PatchToApply } from '../engine/index.js';
import type { FeedState, KeyDescription } from '../feed/index.js';
import { safeDirectory } from '../base/safe-files.js';
import {
  discover,
  exitCodeOf,
  recordOutcomes,
  unloadAll,
  updateAll,
  type Discovery,
  type ProcessOutcome,
  type Progress,
} from '../host/index.js';
import { readPatch } from '../patchfile/index.js';
import { openBlacklist, type Agent } from './agent.js';
import { untilSignalled } from './end-signals.js';
import { withLock } from './lock.js';
import { patchsetSelection } from './selection.js';
import { userAgent } from './version.js';

export interface LibraryOptions {
  /** Only these processes; absent = all. */
  readonly pids?: readonly number[] | undefined;
  /** Time for processes that are busy, and for another kcarectl to end, milliseconds. */
  readonly waitMs: number;
  readonly dryRun: boolean;
  readonly onProgress?: Progress | undefined;
}

export interface LibraryResult {
  readonly dryRun: boolean;
  /** The patchset that was chosen; undefined when the feed has none for this host, and for an unload. */
  readonly patchset: string | undefined;
  readonly processes: readonly ProcessOutcome[];
  readonly warnings: readonly string[];
  readonly exitCode: number;
}

/** Other runs get at least this long to end, milliseconds. */
const shortestLockWaitMs = 30_000;
const feedTimeoutMs = 30_000;

/**
 * Fetches the newest patchset that the config allows and applies it to every process that runs an object it patches.
 * Throws the errors of the feed, CONFIG_INVALID, LOCK_HELD, UNSAFE_MODE, NOT_PERMITTED; what happens to single
 * processes is in the result.
 */
export async function libUpdate(agent: Agent, options: LibraryOptions): Promise<LibraryResult> {
  requireRights(options);
  return await locked(agent, '--lib-update', options, async () => {
    const { cache } = agent.paths;
    const feed = await namingFullDisk(cache, () => refreshFeed(agent));
    const { blacklist, warnings } = await openBlacklist(agent.paths);
    const patched = new Set(feed.patches.map(({ buildId }) => buildId));
    const wanted = (buildId: string): boolean => patched.has(buildId);
    const discovery = discover({ pids: options.pids, blacklist, wanted });
    const patches = await namingFullDisk(cache, () => fetchPatches(feed, discovery));
    const run = { ...options, intentDirectory: agent.paths.intents };
    const processes = await untilSignalled((ending) => updateAll(discovery, patches, { ...run, ending }));
    await noteOutcomes(agent, options, processes, { patchset: feed.patchset ?? '' });
    return {
      dryRun: options.dryRun,
      patchset: feed.patchset,
      processes,
      warnings,
      exitCode: exitCodeOf(processes),
    };
  });
}

/** Puts the original code back into all processes. Throws LOCK_HELD, NOT_PERMITTED. */
export async function libUnload(agent: Agent, options: LibraryOptions): Promise<LibraryResult> {
  requireRights(options);
  return await locked(agent, '--lib-unload', options, async () => {
    const run = { ...options, intentDirectory: agent.paths.intents };
    const processes = await untilSignalled((ending) => unloadAll({ ...run, ending }));
    await noteOutcomes(agent, options, processes, { patchset: '', isUnload: true });
    return {
      dryRun: options.dryRun,
      patchset: undefined,
      processes,
      warnings: [],
      exitCode: exitCodeOf(processes),
    };
  });
}

/** What --lib-info says of processes that were left behind. A note that cannot be written never stops a run. */
async function noteOutcomes(
  { paths, logger }: Agent,
  { dryRun }: LibraryOptions,
  processes: readonly ProcessOutcome[],
  run: { readonly patchset: string; readonly isUnload?: boolean },
): Promise<void> {
  if (dryRun) return;
  try {
    await recordOutcomes(paths.outcomes, processes, { ...run, now: new Date() });
  } catch (thrown) {
    logger.error({ error: asKcareError(thrown).toJSON() }, 'outcomes not noted');
  }
}

/** Trusts the OpenPGP key in the file `path` from now on. Throws KEY_INVALID, FILE_MISSING, UNSAFE_MODE. */
export async function importKey(agent: Agent, path: string): Promise<KeyDescription> {
  const feed = await loadFeedLayer();
  const key = await feed.importKey(agent.paths.keys, path);
  agent.logger.info({ fingerprint: key.fingerprint, userId: key.userId }, 'key imported');
  return key;
}

/** OpenPGP and The Update Framework take longer to load than an unload takes. */
function loadFeedLayer(): Promise<typeof import('../feed/index.js')> {
  return import('../feed/index.js');
}

/** Looking at all processes needs root; a user may name own processes. */
function requireRights({ pids }: LibraryOptions): void {
  if (process.geteuid?.() === 0 || pids !== undefined) return;
  throw new KcareError(
    'NOT_PERMITTED',
    'Only root can patch the processes of all users; name your own with --pid.',
  );
}

/** Runs `action` while no other kcarectl changes processes, and logs what became of each process. */
export async function locked(
  agent: Agent,
  command: string,
  options: LibraryOptions,
  action: () => Promise<LibraryResult>,
): Promise<LibraryResult> {
  await safeDirectory(dirname(agent.paths.lock));
  const lock = { command: `kcarectl ${command}`, waitMs: Math.max(options.waitMs, shortestLockWaitMs) };
  try {
    const result = await withLock(agent.paths.lock, lock, action);
    writeToLog(agent, command, result);
    // R6: only now is it known whether there was space for the log.
    return { ...result, warnings: [...agent.warnings, ...agent.logProblems(), ...result.warnings] };
  } catch (thrown) {
    agent.logger.error(
      { command, error: thrown instanceof KcareError ? thrown.toJSON() : String(thrown) },
      'failed',
    );
    throw thrown;
  }
}

function writeToLog({ logger }: Agent, command: string, result: LibraryResult): void {
  for (const warning of result.warnings) logger.warn({ command }, warning);
  for (const {
    pid,
    comm,
    result: outcome,
    objects,
    error,
    kept,
    unregistered,
    pendingHooks,
    pauseNs,
    wallMs,
  } of result.processes) {
    logger.info(
      {
        command,
        target: pid,
        comm,
        outcome,
        objects,
        error: error?.toJSON(),
        kept,
        unregistered,
        pendingHooks,
        pauseNs,
        wallMs,
      },
      'process',
    );
  }
  const { dryRun, patchset, exitCode } = result;
  logger.info({ command, dryRun, patchset, processes: result.processes.length, exitCode }, 'finished');
}

async function refreshFeed({ paths, config }: Agent): Promise<FeedState> {
  if (config.patchServer === undefined) {
    throw new KcareError(
      'CONFIG_INVALID',
      `PATCH_SERVER is not set in ${paths.config}, so there is nowhere to get patches from.`,
    );
  }
  // Not by the layer's index: an unchanged feed needs neither OpenPGP nor The Update Framework.
  const { updateFeed } = await import('../feed/update.js');
  return await updateFeed({
    server: config.patchServer,
    cacheDirectory: paths.cache,
    keyDirectory: paths.keys,
    select: patchsetSelection(config, new Date()),
    proxy: {
      ...(config.httpProxy !== undefined && { http: config.httpProxy }),
      ...(config.httpsProxy !== undefined && { https: config.httpsProxy }),
    },
    timeoutMs: feedTimeoutMs,
    userAgent: userAgent(),
    ...(config.prefix !== undefined && { prefix: config.prefix }),
  });
}

/** The patches for the objects in use, by build-id. One that cannot be fetched or read stops the run before any process is touched. */
async function fetchPatches(feed: FeedState, discovery: Discovery): Promise<Map<string, PatchToApply>> {
  const buildIds = discovery.processes.flatMap(({ objects }) => objects.map(({ buildId }) => buildId));
  const patches = new Map<string, PatchToApply>();
  for (const buildId of new Set(buildIds)) {
    // R4: patchFor returns only bytes whose signatures hold.
    const file = await feed.patchFor(buildId);
    if (!file) continue;
    const patch = readPatch(file.bytes);
    // R3
    if (patch.buildId !== buildId) {
      throw new KcareError(
        'BUILD_ID_MISMATCH',
        `The feed's patch for ${buildId} is made for ${patch.buildId}.`,
        { buildId },
      );
    }
    patches.set(buildId, { patch, patchset: file.patchset, sha256: file.sha256 });
  }
  return patches;
}
