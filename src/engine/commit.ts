// Carries out a plan: tries the commit until no thread is in the way or time is up.
import { setTimeout as sleep } from 'node:timers/promises';
import { nativeEngine } from '../addon/index.js';
import type { CommitOutcome, SuspectThread } from '../addon/types.js';
import { hex, remoteAddress, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import type { GuardedRange, Plan } from '../link/index.js';
import { frameFinder } from './frames.js';
import type { Pauses } from './pauses.js';
import type { Target } from './target.js';
import { backtrace, type Backtrace, type WordReader } from './unwind.js';

const attemptTimeoutMs = 200;
/** A thread is in most functions for microseconds only: the first pauses are short, and then they grow. */
const firstDelayMs = 1;
const longestDelayMs = 250;

/** Throws TARGET_BUSY (naming the function and the thread), BYTES_MISMATCH or TARGET_GONE; then nothing was written. */
export async function commitPlan(target: Target, plan: Plan, waitMs: number, pauses: Pauses): Promise<void> {
  const deadline = performance.now() + waitMs;
  let delay = firstDelayMs;
  for (;;) {
    const blockers = new Map<number, Backtrace>();
    const outcome = nativeEngine.commit(target.pid, {
      writes: plan.writes,
      guarded: plan.guarded,
      states: plan.states,
      timeoutMs: attemptTimeoutMs,
      examine: examiner(target, plan.guarded, blockers),
    });
    if ('statistics' in outcome)
      pauses.add(outcome.statistics.runningPauseNs, outcome.statistics.longestPauseNs);
    if (outcome.outcome === 'committed') return;
    if (outcome.outcome !== 'busy' || performance.now() + delay > deadline) {
      throw failure(target, plan, outcome, blockers);
    }
    await sleep(delay);
    delay = Math.min(delay * 2, longestDelayMs);
  }
}

/**
 * A thread with words that look like return addresses into old code is clear only when its whole stack could be
 * walked and no frame is there. What cannot be walked counts as in the way.
 */
function examiner(
  target: Target,
  guarded: readonly GuardedRange[],
  blockers: Map<number, Backtrace>,
): (thread: SuspectThread) => boolean {
  const finder = frameFinder(target.objects, target.maps, target.images, target.read);
  return (thread) => {
    const trace = backtrace(thread.registers, finder, wordReader(thread, target));
    const isInside = trace.frames.some(({ instruction, interrupted }) =>
      guarded.some(({ start, end }) =>
        interrupted ? start < instruction && instruction < end : start < instruction && instruction <= end,
      ),
    );
    const isClear = trace.complete && !isInside;
    if (!isClear) blockers.set(thread.tid, trace);
    return isClear;
  };
}

function wordReader(thread: SuspectThread, target: Target): WordReader {
  const view = new DataView(thread.stack.buffer, thread.stack.byteOffset, thread.stack.byteLength);
  return (address) => {
    const offset = Number(address - thread.stackStart);
    if (offset >= 0 && offset + 8 <= thread.stack.length) return view.getBigUint64(offset, true);
    try {
      const bytes = target.read(remoteAddress(address), 8);
      return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    } catch (error) {
      if (error instanceof KcareError) return undefined;
      throw error;
    }
  };
}

function failure(
  target: Target,
  plan: Plan,
  outcome: Exclude<CommitOutcome, { outcome: 'committed' }>,
  blockers: ReadonlyMap<number, Backtrace>,
): KcareError {
  const { pid } = target;
  switch (outcome.outcome) {
    case 'gone':
      return new KcareError('TARGET_GONE', `process ${pid} ended`);
    case 'mismatch': {
      const address = plan.writes[outcome.index]?.address ?? remoteAddress(0);
      const found = Buffer.from(outcome.found).toString('hex');
      return new KcareError('BYTES_MISMATCH', `process ${pid}: ${found} was found at ${hex(address)}`, {
        pid,
        address: hex(address),
        found,
      });
    }
    case 'busy': {
      const { blocker } = outcome;
      if (!blocker) return new KcareError('TARGET_BUSY', `process ${pid}: ${outcome.reason}`, { pid });
      const name = plan.guarded[blocker.range]?.name ?? outcome.reason;
      const trace = blockers.get(blocker.tid)?.frames ?? [];
      return new KcareError('TARGET_BUSY', `process ${pid}: thread ${blocker.tid} is inside ${name}`, {
        pid,
        tid: blocker.tid,
        function: name,
        address: hex(blocker.address),
        backtrace: trace.slice(0, 64).map(({ instruction }) => place(target, instruction)),
      });
    }
  }
}

/** An address as object+offset, which means the same on every run. */
function place(target: Target, address: RemoteAddress): string {
  const object = target.objects.find(({ start, end }) => start <= address && address < end);
  return object ? `${object.name}+${hex(address - object.bias)}` : hex(address);
}
