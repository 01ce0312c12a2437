// Brings processes in order in which an earlier run died and to which the present run does not come.
import { finishInterrupted, interruptedProcesses } from '../engine/index.js';
import { chosenPids, commandOf } from './discover.js';
import { isLeftBehind, type ProcessOutcome } from './outcome.js';
import { isEnding, notReached } from './ending.js';
import type { RunOptions } from './update.js';

/** R2: an outcome for each process where that did not succeed; `handled` are those that the run came to. */
export async function finishOthers(
  options: RunOptions & { readonly pids?: readonly number[] | undefined },
  handled: ReadonlySet<number>,
): Promise<ProcessOutcome[]> {
  if (options.dryRun) return [];
  const interrupted = await interruptedProcesses(options.intentDirectory);
  if (interrupted.length === 0) return [];
  const chosen = options.pids && new Set(chosenPids(options.pids));
  const outcomes: ProcessOutcome[] = [];
  for (const pid of interrupted) {
    if (handled.has(pid) || (chosen && !chosen.has(pid))) continue;
    if (await isEnding(options.ending)) {
      outcomes.push(notReached(pid, options.ending));
      continue;
    }
    const { result, objects, error, wallMs } = await finishInterrupted(pid, options);
    const outcome = { pid, comm: commandOf(pid), result, objects, ...(error && { error }), wallMs };
    if (isLeftBehind(outcome)) outcomes.push(outcome);
  }
  return outcomes;
}
