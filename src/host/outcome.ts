// What happened to each process of a run over the host, and what follows for the run as a whole.
import { KcareError, exitCodes } from '../base/errors.js';
import type { TargetReport } from '../engine/index.js';
import type { BlacklistRule } from './blacklist.js';

export interface PatchedObject {
  /** File name as mapped, with " (deleted)" behind it when the file is gone. */
  readonly objectName: string;
  readonly buildId: string;
  readonly level: number;
}

export interface ProcessOutcome {
  readonly pid: number;
  readonly comm: string;
  readonly result: TargetReport['result'] | 'blacklisted' | 'unreadable';
  /** What is patched in the process now (with a dry run: what would be); after an unload, what was removed. */
  readonly objects: readonly PatchedObject[];
  /** Why the process was left as it was; absent when nothing stood in the way. */
  readonly error?: KcareError;
  readonly rule?: BlacklistRule;
  /** How long threads of the process stood still, nanoseconds (R8). */
  readonly pauseNs?: { readonly running: number; readonly longest: number };
  readonly wallMs: number;
}

/** Called before each process; `done` of `total` are behind. */
export type Progress = (done: number, total: number, pid: number) => void;

const resultsInTheWay = new Set(['busy', 'refused', 'failed', 'unreadable']);

/** The process should have been changed and was not. Blacklisted processes are left alone on purpose; dead ones need nothing (R11). */
export function isLeftBehind(outcome: ProcessOutcome): boolean {
  return resultsInTheWay.has(outcome.result);
}

/**
 * The exit code of the run: 0 when no process was left behind, 4 when some were; when all were, and for the same
 * reason, the code of that reason (2 refused, 1 failed, 4 busy).
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
