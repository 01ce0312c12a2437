// Works through processes one after the other, and comes back to busy ones until a deadline.
import { setTimeout as sleep } from 'node:timers/promises';
import type { ProcessOutcome, Progress } from './outcome.js';

/** A busy process gets this many milliseconds at a time, so that one of them does not hold up all others. */
const sliceMs = 100;
const pauseMs = 20;

export interface RoundOptions {
  /** Total time in milliseconds for coming back to busy processes, after the first round. */
  readonly waitMs: number;
  readonly onProgress?: Progress | undefined;
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
      options.onProgress?.(pids.length - open.length + open.indexOf(pid), pids.length, pid);
      const remaining = deadline === undefined ? options.waitMs : deadline - performance.now();
      outcomes.set(pid, await attempt(pid, Math.max(0, Math.min(sliceMs, remaining))));
    }
    open = open.filter((pid) => outcomes.get(pid)?.result === 'busy');
    deadline ??= performance.now() + options.waitMs;
    if (open.length === 0 || performance.now() >= deadline) break;
    await sleep(pauseMs);
  }
  return [...outcomes.values()];
}
