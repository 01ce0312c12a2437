// The patchset that the last update brought this host to: processes that begin later are brought to the same.
import { existsSync, lstatSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { withGateClosed } from '../engine/index.js';
import { asKcareError, type KcareError } from '../base/errors.js';
import { recordOutcomes, type ProcessOutcome } from '../host/index.js';
import { readSafeFile, safeDirectory, writeAtomically } from '../base/safe-files.js';
import { integer, record, ShapeError, text, utcTime } from '../base/shapes.js';
import type { SelectPatchset } from '../feed/index.js';
import { readSettings, type Agent } from './agent.js';
import { isLibcareEnabled } from './libcare-state.js';
import { withLock } from './lock.js';
import { feedOptions, refreshFeed } from './patch-source.js';
import type { AgentPaths } from './paths.js';

type StandingPaths = Pick<AgentPaths, 'standing' | 'intents'>;

const fileShape = record({ version: integer(1, 1), patchset: text(64), since: utcTime });

/** One patch that new processes get. */
export interface StandingPatch {
  readonly buildId: string;
  readonly level: number;
  /** Of the patch file, hexadecimal. */
  readonly sha256: string;
  /** Where the cache keeps it once it was fetched. */
  readonly path: string;
}

export type Standing =
  /** Why new processes are left as they are. */
  | { readonly isOn: false; readonly reason: string }
  | {
      readonly isOn: true;
      readonly patchset: string;
      /** ISO 8601 time from which on the patches are not to be applied (R4). */
      readonly expires: string;
      /** Patches that are not cached may be fetched. */
      readonly mayFetch: boolean;
      readonly patches: readonly StandingPatch[];
    };

/**
 * From now on new processes are brought to `patchset`; to none when it is undefined. When it returns, no process is being
 * brought to another one any more. The caller holds the agent's lock. Throws UNSAFE_MODE, LOCK_HELD, NO_SPACE.
 */
export async function setStanding(paths: StandingPaths, patchset: string | undefined): Promise<void> {
  if (patchset === undefined && !existsSync(paths.standing)) return;
  await safeDirectory(dirname(paths.standing));
  await withGateClosed(paths.intents, async () => {
    await replaceStanding(paths, patchset);
  });
}

/** As {@link setStanding}; the caller has closed the gate. */
export async function replaceStanding(paths: StandingPaths, patchset: string | undefined): Promise<void> {
  if (patchset === undefined) {
    rmSync(paths.standing, { force: true });
    return;
  }
  const contents = { version: 1, patchset, since: new Date().toISOString() };
  await writeAtomically(paths.standing, Buffer.from(`${JSON.stringify(contents)}\n`));
}

/** Changes whenever something may have changed that says which new processes are patched, and how. */
export function standingStamp(paths: AgentPaths): string {
  return [paths.standing, paths.libcareState, paths.config, ...paths.blacklists].map(stampOf).join(' ');
}

function stampOf(path: string): string {
  const status = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return status ? `${status.ino}:${status.mtimeNs}:${status.size}` : '-';
}

/** By the verified cache alone. Throws the errors of openCachedFeed, CONFIG_INVALID, UNSAFE_MODE. */
export async function readStanding(root: string): Promise<Standing> {
  const settings = await readSettings(root);
  const { paths, config } = settings;
  const off = (reason: string): Standing => ({ isOn: false, reason });
  if (!(await isLibcareEnabled(paths))) return off('LibCare is turned off on this host.');
  if (!config.userspacePatches.includes('libs'))
    return off(`USERSPACE_PATCHES in ${paths.config} lacks libs.`);
  const patchset = await standingName(paths);
  if (patchset === undefined)
    return off('No update of all processes has been made, or all were unloaded since.');
  const { openCachedFeed } = await import('../feed/update.js');
  const feed = await openCachedFeed({
    ...feedOptions(settings),
    select: named(patchset),
    allowExpired: false,
  });
  if (feed.patchset === undefined) return off(`The feed has no patchset ${patchset} any more.`);
  const patches = feed.patches.map((patch) => ({
    buildId: patch.buildId,
    level: patch.level,
    sha256: patch.sha256,
    path: feed.cachedPath(patch),
  }));
  return { isOn: true, patchset, expires: feed.expires, mayFetch: config.updatePolicy !== 'LOCAL', patches };
}

/** Gets the patches for these objects into the cache, as many as can be had. Throws the errors of the feed, LOCK_HELD, CONFIG_INVALID. */
export async function fetchStanding(agent: Agent, buildIds: readonly string[]): Promise<void> {
  const { paths } = agent;
  const patchset = await standingName(paths);
  if (patchset === undefined) return;
  await safeDirectory(dirname(paths.lock));
  await withLock(paths.lock, { command: 'libcare-server', waitMs: 30_000 }, async () => {
    const feed = await refreshFeed(agent, {}, named(patchset));
    const problems: KcareError[] = [];
    for (const buildId of buildIds) {
      try {
        await feed.patchFor(buildId);
      } catch (thrown) {
        problems.push(asKcareError(thrown));
      }
    }
    if (problems[0]) throw problems[0];
  });
}

/** Says in --lib-info why new processes were left behind. A note that cannot be written never stops anything. */
export async function noteNewcomers(
  { paths, logger }: Agent,
  outcomes: readonly ProcessOutcome[],
  patchset: string,
): Promise<void> {
  try {
    await safeDirectory(dirname(paths.lock));
    await withLock(paths.lock, { command: 'libcare-server', waitMs: 30_000 }, () =>
      recordOutcomes(paths.outcomes, outcomes, { patchset, now: new Date() }),
    );
  } catch (thrown) {
    logger.error({ error: asKcareError(thrown).toJSON() }, 'outcomes not noted');
  }
}

function named(wanted: string): SelectPatchset {
  return (patchsets) => patchsets.find(({ name }) => name === wanted)?.name;
}

/** A file that makes no sense counts as none: the next update writes it anew. */
async function standingName({ standing }: Pick<AgentPaths, 'standing'>): Promise<string | undefined> {
  if (!existsSync(standing)) return undefined;
  await safeDirectory(dirname(standing));
  const bytes = await readSafeFile(standing);
  try {
    return fileShape(JSON.parse(bytes.toString('utf8'))).patchset;
  } catch (thrown) {
    if (thrown instanceof SyntaxError || thrown instanceof ShapeError) return undefined;
    throw thrown;
  }
}
