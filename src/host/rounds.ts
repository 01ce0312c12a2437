// Works through processes one after the other, and comes back to unfinished ones until a deadline, or until the run is told to end.
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnding, notReached } from './ending.js';
import { afterReturn, isOpen, type ProcessOutcome, type Progress } from './outcome.js';

/** A busy process gets this many milliseconds at a time, so that one of them does not hold up all others. */
const sliceMs = 100;
const pauseMs = 20;

export interface RoundOptions {
  /** Total time in milliseconds for coming back to busy processes, after the first round. */
  readonly waitMs: number;
  readonly onProgress?: Progress | undefined;
  /** Once aborted, no other process is begun; the reason is the name of a signal. */
  readonly ending?: AbortSignal | undefined;
}

/**
 * One outcome for each pid, in the order given. Sequential on purpose: each attempt costs a few milliseconds of CPU,
 * and stopping threads of several processes at once would lengthen the pauses of all (R8).
 */
export async function inRounds(
  pids: readonly number[],
  options: RoundOptions,
  attempt: (pid: number, waitMs: number) => Promise<ProcessOutcome>,
): Promise<ProcessOutcome[]> {
  const outcomes = new Map<number, ProcessOutcome>();
  let open = [...pids];
  let deadline: number | undefined;
  for (;;) {
    for (const pid of open) {
      if (await isEnding(options.ending)) {
        // A process that was busy before stays so in the report.
        if (!outcomes.has(pid)) outcomes.set(pid, notReached(pid, options.ending));
        continue;
      }
      options.onProgress?.(pids.length - open.length + open.indexOf(pid), pids.length, pid);
      const remaining = deadline === undefined ? options.waitMs : deadline - performance.now();
      const outcome = await attempt(pid, Math.max(0, Math.min(sliceMs, remaining)));
      outcomes.set(pid, afterReturn(outcomes.get(pid), outcome));
    }
    open = open.filter((pid) => {
      const outcome = outcomes.get(pid);
      return outcome !== undefined && isOpen(outcome);
    });
    deadline ??= performance.now() + options.waitMs;
    if (open.length === 0 || options.ending?.aborted || performance.now() >= deadline) break;
    await sleep(pauseMs);
  }
  return [...outcomes.values()];
}
