// A change of a live patch takes its time: every task must pass a point where it runs no old code. Follows and turns it.
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { listProcesses, listThreads, readCommand } from '../proc/index.js';
import { livePatches, livepatchDirectory, readWord, type LivePatch } from './inspect.js';

/** A task that still has to change over. */
export interface Blocker {
  readonly pid: number;
  readonly tid: number;
  readonly comm: string;
  /** Functions of the kernel that it is in, innermost first; empty when it runs. */
  readonly stack: readonly string[];
}

const pollMs = 20;
const longestList = 20;

/** The tasks that are not yet in the state `target` (1: new code, 0: old). Kernel threads are among them. */
export function blockersOf(target: 0 | 1): Blocker[] {
  const found: Blocker[] = [];
  for (const pid of listProcesses()) {
    for (const tid of threadsOf(pid)) {
      const state = readWord(`/proc/${pid}/task/${tid}/patch_state`);
      // -1: no transition is running, or the task came into being in the new state.
      if (state === undefined || state === '-1' || state === String(target)) continue;
      found.push({
        pid,
        tid,
        comm: readWord(`/proc/${pid}/task/${tid}/comm`) ?? readCommand(pid),
        stack: stackOf(pid, tid),
      });
      if (found.length >= longestList) return found;
    }
  }
  return found;
}

function threadsOf(pid: number): readonly number[] {
  try {
    return listThreads(pid);
  } catch {
    return [];
  }
}

/** "[<0>] do_select+0x7c/0x90" */
function stackOf(pid: number, tid: number): string[] {
  try {
    const lines = readFileSync(`/proc/${pid}/task/${tid}/stack`, 'utf8').split('\n');
    return lines.flatMap((line) => /^\[<\S+>\] (\S+)/.exec(line)?.[1] ?? []);
  } catch {
    return [];
  }
}

export interface Following {
  /** Milliseconds until the transition counts as held up. */
  readonly waitMs: number;
  readonly onProgress?: ((blockers: readonly Blocker[]) => void) | undefined;
  readonly ending?: AbortSignal | undefined;
}

/** Waits until the transition of `name` is over. Returns the patch afterwards (undefined: it is gone), or who holds it up. */
export async function followTransition(
  name: string,
  target: 0 | 1,
  { waitMs, onProgress, ending }: Following,
): Promise<{ readonly patch: LivePatch | undefined } | { readonly blockers: readonly Blocker[] }> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    const patch = livePatches().find((one) => one.name === name);
    if (!patch?.isInTransition) return { patch };
    if (performance.now() >= deadline || ending?.aborted) return { blockers: blockersOf(target) };
    onProgress?.(blockersOf(target));
    await sleep(onProgress ? 10 * pollMs : pollMs);
  }
}

/** Enables or disables; in the middle of a transition, turns it round. Throws the system's error (EINVAL, EBUSY). */
export function setEnabled(name: string, isEnabled: boolean): void {
  writeFileSync(`${livepatchDirectory}/${name}/enabled`, isEnabled ? '1' : '0');
}

/** The tasks that are left are taken for changed over. The patch can never be unloaded afterwards. */
export function forceTransition(name: string): void {
  writeFileSync(`${livepatchDirectory}/${name}/force`, '1');
}
