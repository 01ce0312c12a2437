// Carries out a plan: tries the commit until no thread is in the way or time is up.
import { setTimeout as sleep } from 'node:timers/promises';
import { nativeEngine } from '../addon/index.js';
import type { CommitOutcome, HeldFunction, SuspectThread } from '../addon/types.js';
import { hex, remoteAddress, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import type { GuardedRange, Plan } from '../link/index.js';
import { memorySearch, type Absence } from './contexts.js';
import { frameFinder } from './frames.js';
import type { Pauses } from './pauses.js';
import { lasting } from './report.js';
import type { Target } from './target.js';
import { backtrace, type Backtrace, type WordReader } from './unwind.js';

const attemptTimeoutMs = 200;
/** A thread is in most functions for microseconds only: the first pauses are short, and then they grow. */
const firstDelayMs = 1;
const longestDelayMs = 250;

/**
 * Throws TARGET_BUSY (naming the function and the thread or suspended context), BYTES_MISMATCH or TARGET_GONE; then
 * nothing was written, unless an update function did not return. `absence`: that nothing in the process may point to an image any more.
 */
export async function commitPlan(
  target: Target,
  plan: Plan,
  waitMs: number,
  pauses: Pauses,
  absence: Absence = { unreferenced: [], own: [] },
  held?: HeldFunction,
): Promise<void> {
  const deadline = performance.now() + waitMs;
  const blockers: Blockers = new Map();
  let delay = firstDelayMs;
  let telling: Busy | undefined;
  for (;;) {
    const search = memorySearch(target, absence);
    const outcome = nativeEngine.commit(target.pid, {
      writes: plan.writes,
      guarded: plan.guarded,
      states: plan.states,
      ...(search && { search }),
      ...(held && { held }),
      timeoutMs: attemptTimeoutMs,
      examine: examiner(target, plan.guarded, blockers, search?.contexts === true),
    });
    if ('statistics' in outcome)
      pauses.add(outcome.statistics.runningPauseNs, outcome.statistics.longestPauseNs);
    if (outcome.outcome === 'committed') {
      if (!outcome.unfinished) return;
      const text = `process ${target.pid}: an update function has not returned yet, and all threads wait for it`;
      throw new KcareError('TARGET_BUSY', text, { pid: target.pid });
    }
    if (outcome.outcome !== 'busy' || outcome.referenced) throw failure(target, plan, outcome, blockers);
    // Where a thread was seen says more than that another one did not stop on a loaded machine.
    telling = outcome.blocker ? outcome : (telling ?? outcome);
    if (performance.now() + delay > deadline) throw failure(target, plan, telling, blockers);
    await sleep(delay);
    delay = Math.min(delay * 2, longestDelayMs);
  }
}

type Busy = Extract<CommitOutcome, { outcome: 'busy' }>;

/** By thread id, or by the address at which a context was saved. */
type Blockers = Map<number | RemoteAddress, Backtrace>;

/**
 * A thread with words that look like return addresses into old code is clear only when its whole stack could be
 * walked and no frame is there. What cannot be walked counts as in the way. The same holds for a suspended context; where
 * `contexts` are judged on their own, a thread that stands on the stack of a coroutine need not be followed further.
 */
function examiner(
  target: Target,
  guarded: readonly GuardedRange[],
  blockers: Blockers,
  contexts: boolean,
): (thread: SuspectThread) => boolean {
  const finder = frameFinder(target.objects, target.maps, target.images, target.read);
  return (thread) => {
    const trace = backtrace(
      thread.registers,
      finder,
      wordReader(thread, target),
      thread.context !== undefined,
    );
    const isInside = trace.frames.some(({ instruction, interrupted }) =>
      guarded.some(({ start, end }) =>
        interrupted ? start < instruction && instruction < end : start < instruction && instruction <= end,
      ),
    );
    const isWhole = trace.complete && (contexts || !trace.endsCoroutine);
    const isClear = trace.isOver === true || (isWhole && !isInside);
    if (!isClear) blockers.set(thread.context ?? thread.tid, trace);
    return isClear;
  };
}

export function wordReader(thread: SuspectThread, target: Target): WordReader {
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
  blockers: Blockers,
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
      if (!blocker) {
        const details = { pid, ...(outcome.referenced && lasting) };
        return new KcareError('TARGET_BUSY', `process ${pid}: ${outcome.reason}`, details);
      }
      const name = plan.guarded[blocker.range]?.name ?? outcome.reason;
      const trace = blockers.get(blocker.context ?? blocker.tid)?.frames ?? [];
      const who =
        blocker.context === undefined
          ? `thread ${blocker.tid}`
          : `a suspended context (saved at ${hex(blocker.context)})`;
      return new KcareError('TARGET_BUSY', `process ${pid}: ${who} is inside ${name}`, {
        pid,
        ...(blocker.context === undefined ? { tid: blocker.tid } : { context: hex(blocker.context) }),
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
