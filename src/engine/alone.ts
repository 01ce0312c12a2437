// Waits for the moment when no other process shares the memory of the target.
import { setTimeout as sleep } from 'node:timers/promises';
import { nativeEngine } from '../addon/index.js';
import { KcareError } from '../base/errors.js';

const pauseMs = 5;

/**
 * A child of vfork(2) shares the memory for a moment, a process made by clone(2) with CLONE_VM for good. Throws
 * TARGET_BUSY with its process id when it is still there after `waitMs`; nothing is mapped or written before (R2).
 */
export async function waitUntilAlone(pid: number, waitMs: number): Promise<void> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    const sharer = nativeEngine.findMemorySharer(pid);
    if (sharer === undefined) return;
    if (performance.now() + pauseMs > deadline) {
      throw new KcareError(
        'TARGET_BUSY',
        `process ${pid}: process ${sharer} shares its memory (vfork, or clone with CLONE_VM)`,
        { pid, sharer },
      );
    }
    await sleep(pauseMs);
  }
}
