// Applies patches to all processes that need them, and removes them from all that have them.
import { hex } from '../base/address.js';
import { asKcareError } from '../base/errors.js';
import { apply, inspect, unload, type PatchToApply, type TargetReport } from '../engine/index.js';
import {
  chosenPids,
  commandOf,
  type Discovery,
  type HostProcess,
  type UnreadableProcess,
} from './discover.js';
import type { ProcessOutcome, Progress } from './outcome.js';
import { finishOthers } from './interrupted.js';
import { inRounds } from './rounds.js';

export interface RunOptions {
  /** How long to come back to busy processes, milliseconds. */
  readonly waitMs: number;
  readonly dryRun: boolean;
  /** As the engine's option of this name. */
  readonly intentDirectory?: string | undefined;
  readonly onProgress?: Progress | undefined;
  /** As the option of {@link inRounds}. */
  readonly ending?: AbortSignal | undefined;
}

/**
 * Brings every discovered process to the patches in `patches` (by build-id). Processes without a patch for any of
 * their objects are left out of the result. Never throws because of one process.
 */
export async function updateAll(
  discovery: Discovery,
  patches: ReadonlyMap<string, PatchToApply>,
  options: RunOptions & { readonly pids?: readonly number[] | undefined },
): Promise<ProcessOutcome[]> {
  const concerned = discovery.processes.filter(({ objects }) =>
    objects.some(({ buildId }) => patches.has(buildId)),
  );
  const byPid = new Map(concerned.map((process) => [process.pid, process]));
  const allowed = concerned.filter(({ blacklisted }) => !blacklisted).map(({ pid }) => pid);
  const done = await inRounds(allowed, options, async (pid, waitMs) => {
    const target = byPid.get(pid);
    return await updateOne(pid, target, patchesFor(target, patches), { ...options, waitMs });
  });
  return [
    ...done,
    ...(await finishOthers(options, new Set(allowed))),
    ...concerned.flatMap(blacklistedOutcome),
    ...discovery.unreadable.map(unreadableOutcome),
  ].sort(byPidOrder);
}

/** Brings one process to the patches `wanted`. Never throws because of it. */
export async function updateOne(
  pid: number,
  target: HostProcess | undefined,
  wanted: readonly PatchToApply[],
  options: RunOptions,
): Promise<ProcessOutcome> {
  const report = await guarded(pid, () => apply(pid, wanted, options));
  return outcomeOf(
    options.dryRun && !report.error ? { ...report, objects: intended(target, wanted) } : report,
    target,
  );
}

/** Removes all patches from every process that has some; other processes are left out of the result. */
export async function unloadAll(
  options: RunOptions & { readonly pids?: readonly number[] | undefined },
): Promise<ProcessOutcome[]> {
  const { processes, unreadable } = infoAll(options);
  const known = new Map(processes.map((process) => [process.pid, process]));
  const done = await inRounds([...known.keys()], options, async (pid, waitMs) => {
    const report = await guarded(pid, () => unload(pid, { ...options, waitMs }));
    const before = known.get(pid);
    const isRemoved = report.result === 'unloaded' || report.result === 'would-unload';
    return {
      ...outcomeOf(report, undefined),
      comm: before?.comm ?? '',
      ...(isRemoved &&
        before && {
          objects: before.images.map(({ objectName, buildId, level }) => ({ objectName, buildId, level })),
        }),
    };
  });
  const others = await finishOthers(options, new Set(known.keys()));
  return [...done, ...others, ...unreadable.map(unreadableOutcome)].sort(byPidOrder);
}

/** A process with patches, as its own memory tells. */
export interface PatchedProcess {
  readonly pid: number;
  readonly comm: string;
  readonly images: ReturnType<typeof inspect>;
}

/** The patched processes of the host, and those that could not be examined. */
export function infoAll(options: { readonly pids?: readonly number[] | undefined } = {}): {
  readonly processes: readonly PatchedProcess[];
  readonly unreadable: readonly UnreadableProcess[];
} {
  const processes: PatchedProcess[] = [];
  const unreadable: UnreadableProcess[] = [];
  for (const pid of chosenPids(options.pids)) {
    try {
      const images = inspect(pid);
      if (images.length > 0) processes.push({ pid, comm: commandOf(pid), images });
    } catch (thrown) {
      const error = asKcareError(thrown);
      if (error.code === 'TARGET_GONE' && !options.pids) continue;
      unreadable.push({ pid, comm: commandOf(pid), error });
    }
  }
  return { processes, unreadable };
}

function patchesFor(
  target: HostProcess | undefined,
  patches: ReadonlyMap<string, PatchToApply>,
): PatchToApply[] {
  const buildIds = new Set(target?.objects.map(({ buildId }) => buildId));
  return [...buildIds].flatMap((buildId) => patches.get(buildId) ?? []);
}

/** What a real run would leave patched. */
function intended(target: HostProcess | undefined, wanted: readonly PatchToApply[]): TargetReport['objects'] {
  return wanted.flatMap(({ patch }) => {
    const object = target?.objects.find(({ buildId }) => buildId === patch.buildId);
    return object ? [{ objectName: object.name, buildId: patch.buildId, level: patch.metadata.level }] : [];
  });
}

/** A defect while one process is patched must not keep the others from being patched. */
async function guarded(pid: number, action: () => Promise<TargetReport>): Promise<TargetReport> {
  const started = performance.now();
  try {
    return await action();
  } catch (thrown) {
    const error = asKcareError(thrown);
    const result = error.code === 'TARGET_GONE' ? 'gone' : 'failed';
    return { pid, result, objects: [], error, ptraceRequests: 0, wallMs: performance.now() - started };
  }
}

function outcomeOf(report: TargetReport, target: HostProcess | undefined): ProcessOutcome {
  const deleted = new Set(target?.objects.filter((object) => object.deleted).map(({ buildId }) => buildId));
  return {
    pid: report.pid,
    comm: target?.comm ?? '',
    result: report.result,
    objects: report.objects.map(({ objectName, buildId, level }) => ({
      objectName: deleted.has(buildId) ? `${objectName} (deleted)` : objectName,
      buildId,
      level,
    })),
    ...(report.error && { error: report.error }),
    ...(report.kept && { kept: report.kept.map((image) => ({ ...image, address: hex(image.address) })) }),
    ...(report.unregistered && {
      unregistered: report.unregistered.map(({ objectName, reason, mayPass }) => ({
        objectName,
        reason,
        mayPass,
      })),
    }),
    ...(report.pendingHooks && { pendingHooks: report.pendingHooks }),
    ...(report.pauseNs && { pauseNs: report.pauseNs }),
    ptraceRequests: report.ptraceRequests,
    wallMs: report.wallMs,
  };
}

function blacklistedOutcome({ pid, comm, blacklisted }: HostProcess): ProcessOutcome[] {
  return blacklisted ? [{ pid, comm, result: 'blacklisted', objects: [], rule: blacklisted, wallMs: 0 }] : [];
}

function unreadableOutcome({ pid, comm, error }: UnreadableProcess): ProcessOutcome {
  const result = error.code === 'TARGET_GONE' ? 'gone' : 'unreadable';
  return { pid, comm, result, objects: [], error, wallMs: 0 };
}

function byPidOrder(left: ProcessOutcome, right: ProcessOutcome): number {
  return left.pid - right.pid;
}
