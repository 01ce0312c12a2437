// One process that has just begun, or has just loaded a library: whether it lacks a patch, and bringing it there.
import { existsSync } from 'node:fs';
import { asKcareError } from '../base/errors.js';
import { inspect, type PatchToApply } from '../engine/index.js';
import type { Blacklist } from './blacklist.js';
import { discover, type HostProcess } from './discover.js';
import type { ProcessOutcome } from './outcome.js';
import type { OutcomeRecord } from './outcome-records.js';
import { updateOne } from './update.js';

export interface NewcomerRules {
  /** By build-id. */
  readonly levels: ReadonlyMap<string, number>;
  readonly blacklist: Blacklist;
  /** What runs noted: a process that was unloaded by name stays so. */
  readonly outcomes: Pick<ReadonlyMap<number, OutcomeRecord>, 'get'>;
}

export interface Newcomer {
  readonly process: HostProcess;
  /** Build-ids of objects without their patch, or with one of a lower level. */
  readonly lacking: readonly string[];
}

/**
 * Undefined for a process that uses none of the objects, or has ended. A level that is higher than the one asked for stays.
 * Throws NOT_PERMITTED, HEADER_MALFORMED.
 */
export function lookAtNewcomer(
  pid: number,
  { levels, blacklist, outcomes }: NewcomerRules,
): Newcomer | undefined {
  // In a storm of short processes most are gone by now; to be told so by an exception takes long.
  if (!existsSync(`/proc/${pid}`)) return undefined;
  const { processes, unreadable } = discover({
    pids: [pid],
    blacklist,
    wanted: (buildId) => levels.has(buildId),
  });
  const [process] = processes;
  const [unread] = unreadable;
  if (unread && unread.error.code !== 'TARGET_GONE') throw unread.error;
  if (!process) return undefined;
  if (process.blacklisted || outcomes.get(pid)?.result === 'unloaded') return { process, lacking: [] };
  const present = inspectLiving(pid);
  const lacking = new Set(process.objects.map(({ buildId }) => buildId));
  for (const { buildId, state, level } of present)
    if (state === 'active' && level >= (levels.get(buildId) ?? 0)) lacking.delete(buildId);
  return { process, lacking: [...lacking] };
}

function inspectLiving(pid: number): ReturnType<typeof inspect> {
  try {
    return inspect(pid);
  } catch (thrown) {
    const error = asKcareError(thrown);
    if (error.code === 'TARGET_GONE') return [];
    throw error;
  }
}

/** Applies `patches`, in the time of one look; whoever comes back decides about busy ones. */
export function bringNewcomer(
  { process }: Newcomer,
  patches: readonly PatchToApply[],
  intentDirectory: string,
): Promise<ProcessOutcome> {
  return updateOne(process.pid, process, patches, { waitMs: 0, dryRun: false, intentDirectory });
}
