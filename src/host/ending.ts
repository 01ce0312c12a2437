// A run that is told to end: it finishes the process at hand, begins no other, and says which it did not come to.
import { setImmediate as turnOfEventLoop } from 'node:timers/promises';
import { KcareError } from '../base/errors.js';
import { inspect } from '../engine/index.js';
import { commandOf } from './discover.js';
import type { ProcessOutcome } from './outcome.js';

/** True when no other process is to be begun. Signals reach Node only when its event loop turns, so it turns here. */
export async function isEnding(ending: AbortSignal | undefined): Promise<boolean> {
  if (ending === undefined) return false;
  await turnOfEventLoop();
  return ending.aborted;
}

/** R6: what the process has now is said, too; it is only read. */
export function notReached(pid: number, ending: AbortSignal | undefined): ProcessOutcome {
  const started = performance.now();
  const error = new KcareError(
    'RUN_ENDED',
    `${String(ending?.reason)} ended the run before it came to process ${pid}`,
    { pid },
  );
  const objects = imagesOf(pid).map(({ objectName, buildId, level }) => ({ objectName, buildId, level }));
  const wallMs = performance.now() - started;
  return { pid, comm: commandOf(pid), result: 'not-reached', objects, error, wallMs };
}

function imagesOf(pid: number): ReturnType<typeof inspect> {
  try {
    return inspect(pid).filter(({ state }) => state === 'active');
  } catch {
    return [];
  }
}
