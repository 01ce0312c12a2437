// --lib-update and --lib-unload: the feed, the blacklist and all processes brought together under one lock.
import { dirname } from 'node:path';
import { asKcareError, KcareError } from '../base/errors.js';
import { inspect, withGateClosed, type PatchToApply } from '../engine/index.js';
import type { Patch } from '../patchfile/index.js';
import type { KeyDescription } from '../feed/index.js';
import { safeDirectory } from '../base/safe-files.js';
import {
  discover,
  exitCodeOf,
  isLeftBehind,
  recordOutcomes,
  summarise,
  type Discovery,
  unloadAll,
  updateAll,
  type ProcessOutcome,
  type Progress,
} from '../host/index.js';
import { openBlacklist, type Agent } from './agent.js';
import { untilSignalled } from './end-signals.js';
import { requireLibcare } from './libcare-state.js';
import { locate } from './location.js';
import { withLock } from './lock.js';
import { runUpdateHooks } from './update-hooks.js';
import { choosePatches, type SourceOptions } from './patch-source.js';
import { replaceStanding, setStanding } from './standing-patchset.js';

export interface LibraryOptions extends SourceOptions {
  /** Only these processes; absent = all. */
  readonly pids?: readonly number[] | undefined;
  /** Time for processes that are busy, and for another kcarectl to end, milliseconds. */
  readonly waitMs: number;
  readonly dryRun: boolean;
  readonly onProgress?: Progress | undefined;
  /** As the user named it, for the log and for those who wait; default --lib-update. */
  readonly command?: string | undefined;
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

/**
 * Fetches the newest patchset that the config allows and applies it to every process that runs an object it patches.
 * Throws the errors of the feed, CONFIG_INVALID, LOCK_HELD, UNSAFE_MODE, NOT_PERMITTED; what happens to single
 * processes is in the result.
 */
export async function libUpdate(agent: Agent, options: LibraryOptions): Promise<LibraryResult> {
  requireRights(options);
  await requireLibcare(agent.paths);
  return await locked(agent, options.command ?? '--lib-update', options, async () => {
    const { blacklist, warnings } = await openBlacklist(agent.paths);
    const chosen = await choosePatches(agent, options, (wanted) =>
      discover({ pids: options.pids, blacklist, wanted }),
    );
    const { patchset, discovery, patches } = chosen;
    const run = { ...options, intentDirectory: agent.paths.intents };
    const isWork = !options.dryRun && hasWork(discovery, patches);
    if (isWork) await beforeUpdate(agent, patchset);
    const isForAll = !options.dryRun && options.pids === undefined;
    // What begins while this run is at work is brought to the same.
    if (isForAll) await setStanding(agent.paths, patchset);
    const processes = await untilSignalled((ending) => updateAll(discovery, patches, { ...run, ending }));
    const hookWarnings = isWork ? await afterUpdate(agent, patchset, processes) : [];
    await noteOutcomes(agent, options, processes, { patchset: patchset ?? '' });
    return {
      dryRun: options.dryRun,
      patchset,
      processes,
      warnings: [...warnings, ...chosen.warnings, ...hookWarnings],
      exitCode: exitCodeOf(processes),
    };
  });
}

/** Puts the original code back into all processes. Throws LOCK_HELD, NOT_PERMITTED. */
export async function libUnload(agent: Agent, options: LibraryOptions): Promise<LibraryResult> {
  requireRights(options);
  return await locked(agent, '--lib-unload', options, async () => {
    const run = { ...options, intentDirectory: agent.paths.intents };
    const warnings: string[] = [];
    // Nobody must patch again what is unloaded here before that is noted.
    const processes = await withGateClosed(agent.paths.intents, async () => {
      if (!options.dryRun && options.pids === undefined) warnings.push(...(await endStanding(agent)));
      const unloaded = await untilSignalled((ending) => unloadAll({ ...run, ending }));
      await noteOutcomes(agent, options, unloaded, { patchset: '', isUnload: true });
      return unloaded;
    });
    return {
      dryRun: options.dryRun,
      patchset: undefined,
      processes,
      warnings,
      exitCode: exitCodeOf(processes),
    };
  });
}

/** R7: a disk that an error made read-only must not keep the patches in the processes. */
async function endStanding({ paths }: Agent): Promise<string[]> {
  try {
    await replaceStanding(paths, undefined);
    return [];
  } catch (thrown) {
    const { code, message } = asKcareError(thrown);
    if (code !== 'READ_ONLY') throw thrown;
    return [`New processes are patched as they begin, as long as libcare.service runs: ${message}`];
  }
}

/** Hooks are for updates that change something: a process that this run concerns lacks a patch. */
function hasWork(discovery: Discovery, patches: ReadonlyMap<string, PatchToApply>): boolean {
  return discovery.processes.some(({ pid, objects, blacklisted }) => {
    if (blacklisted) return false;
    const wanted = objects.flatMap(({ buildId }) => patches.get(buildId)?.patch ?? []);
    return wanted.length > 0 && lacksOne(pid, wanted);
  });
}

function lacksOne(pid: number, wanted: readonly Patch[]): boolean {
  let images: ReturnType<typeof inspect>;
  try {
    images = inspect(pid);
  } catch {
    // The update says what is wrong with this process.
    return true;
  }
  return wanted.some(
    ({ buildId, metadata }) =>
      !images.some(
        (image) => image.buildId === buildId && image.state === 'active' && image.level === metadata.level,
      ),
  );
}

async function beforeUpdate({ paths }: Agent, patchset: string | undefined): Promise<void> {
  const environment = { KCARE_ROOT: paths.root, KCARE_PATCHSET: patchset ?? '' };
  await runUpdateHooks(paths, 'before-update', { environment });
}

/** The processes are patched, whatever a program says afterwards: that is a warning (R6). */
async function afterUpdate(
  { paths }: Agent,
  patchset: string | undefined,
  processes: readonly ProcessOutcome[],
): Promise<string[]> {
  const { applied, upgraded } = summarise(processes);
  const environment = {
    KCARE_ROOT: paths.root,
    KCARE_PATCHSET: patchset ?? '',
    KCARE_EXIT_STATUS: `${exitCodeOf(processes)}`,
    KCARE_APPLIED: `${applied}`,
    KCARE_UPGRADED: `${upgraded}`,
    KCARE_LEFT: `${processes.filter(isLeftBehind).length}`,
  };
  try {
    await runUpdateHooks(paths, 'after-update', { environment });
    return [];
  } catch (thrown) {
    if (!(thrown instanceof KcareError)) throw thrown;
    return [thrown.message];
  }
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
    const { processes, ...run } = await withLock(agent.paths.lock, lock, action);
    const result = {
      ...run,
      processes: processes.map((outcome) => ({ ...outcome, ...locate(outcome.pid) })),
    };
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
    container,
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
        container,
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
