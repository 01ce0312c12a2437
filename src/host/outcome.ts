// What happened to each process of a run over the host, and what follows for the run as a whole.
import { KcareError, exitCodes } from '../base/errors.js';
import type { PendingHook, TargetReport } from '../engine/index.js';
import type { BlacklistRule } from './blacklist.js';

export interface PatchedObject {
  /** File name as mapped, with " (deleted)" behind it when the file is gone. */
  readonly objectName: string;
  readonly buildId: string;
  readonly level: number;
}

export interface KeptMemory {
  /** Hexadecimal, with 0x. */
  readonly address: string;
  /** Bytes. */
  readonly size: number;
  readonly reason: string;
  /** Trying again soon can help. */
  readonly mayPass: boolean;
}

export interface UnknownToUnwinder {
  readonly objectName: string;
  readonly reason: string;
  readonly mayPass: boolean;
}

export interface ProcessOutcome {
  readonly pid: number;
  readonly comm: string;
  /** In which container it runs; absent for a process of this one, or of none. */
  readonly container?: string;
  readonly result: TargetReport['result'] | 'blacklisted' | 'unreadable' | 'not-reached';
  /** What is patched in the process now (with a dry run: what would be); after an unload, what was removed. */
  readonly objects: readonly PatchedObject[];
  /** Why the process was left as it was; absent when nothing stood in the way. */
  readonly error?: KcareError;
  readonly rule?: BlacklistRule;
  /** Memory of patches that are out of effect, which a later run unmaps; absent when there is none. */
  readonly kept?: readonly KeptMemory[];
  /** Patches through which the process cannot unwind until a later run registers them; absent when there is none. */
  readonly unregistered?: readonly UnknownToUnwinder[];
  /** Hooks of patches in effect that a later run has to run; absent when there is none. */
  readonly pendingHooks?: readonly PendingHook[];
  /** How long threads of the process stood still, nanoseconds (R8). */
  readonly pauseNs?: { readonly running: number; readonly longest: number };
  /** Absent for a process that the engine was not asked to work on. */
  readonly ptraceRequests?: number;
  readonly wallMs: number;
}

/** Called before each process; `done` of `total` are behind. */
export type Progress = (done: number, total: number, pid: number) => void;

const resultsInTheWay = new Set(['busy', 'refused', 'failed', 'unreadable', 'not-reached']);

/** Coming back to the process within this run can bring it further. */
export function isOpen({ result, kept = [], unregistered = [] }: ProcessOutcome): boolean {
  return result === 'busy' || [...kept, ...unregistered].some(({ mayPass }) => mayPass);
}

/** What became of a process to which a run came back. */
export function afterReturn(before: ProcessOutcome | undefined, now: ProcessOutcome): ProcessOutcome {
  if (before === undefined || before.result === 'busy' || now.result === 'gone') return now;
  const { result, objects } = now.result === 'unchanged' || isLeftBehind(now) ? before : now;
  const { comm, kept, unregistered } = isLeftBehind(now) ? before : now;
  const pauses = [before, now].flatMap(({ pauseNs }) => pauseNs ?? []);
  const longest = (kind: 'running' | 'longest'): number => Math.max(...pauses.map((pause) => pause[kind]));
  return {
    pid: now.pid,
    comm,
    result,
    objects,
    ...(kept && { kept }),
    ...(unregistered && { unregistered }),
    ...(pauses.length > 0 && { pauseNs: { running: longest('running'), longest: longest('longest') } }),
    ptraceRequests: (before.ptraceRequests ?? 0) + (now.ptraceRequests ?? 0),
    wallMs: before.wallMs + now.wallMs,
  };
}

/** The process should have been changed and was not. Blacklisted processes are left alone on purpose; dead ones need nothing (R11). */
export function isLeftBehind(outcome: ProcessOutcome): boolean {
  return resultsInTheWay.has(outcome.result);
}

/**
 * The exit code of the run: 0 when no process was left behind, 4 when some were; when all were, and for the same
 * reason, the code of that reason (2 refused, 1 failed, 4 busy or not reached).
 */
export function exitCodeOf(outcomes: readonly ProcessOutcome[]): number {
  const leftBehind = outcomes.filter(isLeftBehind);
  if (leftBehind.length === 0) return exitCodes.done;
  const settled = outcomes.some(
    (outcome) => !isLeftBehind(outcome) && outcome.result !== 'blacklisted' && outcome.result !== 'gone',
  );
  if (settled) return exitCodes.partial;
  const codes = new Set(leftBehind.map(exitCodeOfOne));
  return codes.size === 1 ? ([...codes][0] ?? exitCodes.partial) : exitCodes.partial;
}

function exitCodeOfOne(outcome: ProcessOutcome): number {
  if (outcome.result === 'refused') return exitCodes.refused;
  if (outcome.result === 'busy') return exitCodes.partial;
  return outcome.error?.exitCode ?? exitCodes.failed;
}

export interface ObjectCount {
  readonly name: string;
  readonly processes: number;
}

export interface Summary {
  /** Processes that got their first patch of ours, a newer one, or back their original code. */
  readonly applied: number;
  readonly upgraded: number;
  readonly unloaded: number;
  /** Objects patched now, over all processes. */
  readonly patches: number;
  /** For each patched object the number of processes, by name. */
  readonly objects: readonly ObjectCount[];
  /** The same for objects that an unload restored. */
  readonly removed: readonly ObjectCount[];
}

/** The run in numbers. A dry run changes nothing, so that it counts only what is patched already (R6). */
export function summarise(outcomes: readonly ProcessOutcome[]): Summary {
  const withResult = (result: ProcessOutcome['result']): ProcessOutcome[] =>
    outcomes.filter((outcome) => outcome.result === result);
  // A process that resisted an upgrade still runs the older patch that its objects name.
  const live = outcomes.filter(({ result }) => !result.startsWith('would-') && result !== 'unloaded');
  return {
    applied: withResult('applied').length,
    upgraded: withResult('upgraded').length,
    unloaded: withResult('unloaded').length,
    patches: live.reduce((sum, { objects }) => sum + objects.length, 0),
    objects: countObjects(live),
    removed: countObjects(withResult('unloaded')),
  };
}

function countObjects(outcomes: readonly ProcessOutcome[]): ObjectCount[] {
  const counts = new Map<string, number>();
  for (const { objects } of outcomes) {
    for (const name of new Set(objects.map(({ objectName }) => objectName)))
      counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts]
    .map(([name, processes]) => ({ name, processes }))
    .sort((left, right) => (left.name < right.name ? -1 : 1));
}
