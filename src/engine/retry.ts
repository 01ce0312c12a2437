// Tries again when the memory of a target changed between the look at it and the work in it.
import { KcareError } from '../base/errors.js';

const mostAttempts = 3;

/**
 * Runs `attempt`, which looks at the target anew each time, again after TARGET_MEMORY: the process may just have
 * unloaded a library, and what a killed patcher asked of a thread (to unmap an image) may be done as late as now. An
 * attempt that has changed the target settles its result at once: a later one finds nothing left to do (R6).
 */
export async function withFreshLooks<Result>(
  attempt: (settle: (result: Result) => void) => Promise<Result>,
): Promise<Result> {
  const settled: Result[] = [];
  for (let left = mostAttempts - 1; ; left--) {
    try {
      const last = await attempt((result) => settled.push(result));
      const [first = last] = settled;
      return first;
    } catch (error) {
      if (left === 0 || !(error instanceof KcareError) || error.code !== 'TARGET_MEMORY') throw error;
    }
  }
}
