// What the native engine takes and gives. src/addon/index.ts validates and marshals; addon/binding.cc is the other side.
import type { RemoteAddress, RemoteRange } from '../base/address.js';
import type { PlannedState, PlannedWrite } from '../link/plan.js';

/** One system call to be made by a thread of the target. At most six arguments. */
export interface RemoteCall {
  readonly number: number;
  readonly arguments: readonly bigint[];
  /**
   * For mmap: written to the address that the call returned, while the thread is still stopped. So a mapping of ours
   * says what it is from the start, even when we die before anything else is written there.
   */
  readonly mark?: Uint8Array;
}

export interface CallOptions {
  /**
   * Where the target has `mov $15,%rax; syscall` (48 c7 c0 0f 00 00 00 0f 05), the signal return trampoline that is in
   * every dynamic process, usually in the loader. Calls are made from there.
   */
  readonly signalReturn: RemoteAddress;
  /** Give up when no thread could be stopped within this many milliseconds. */
  readonly timeoutMs: number;
}

export type CallOutcome =
  /**
   * `results` holds one kernel return value per call (negative errno on failure); later calls are not made after a
   * failure. The pause is that of the one thread that was stopped.
   */
  | {
      readonly outcome: 'done';
      readonly tid: number;
      readonly results: readonly bigint[];
      readonly pauseNs: number;
      readonly wasRunning: boolean;
    }
  | { readonly outcome: 'busy'; readonly reason: string }
  | { readonly outcome: 'gone' };

/**
 * A stopped thread whose stack holds words that could be return addresses into a guarded range; or one that is not on
 * its native stack (signal handler on an alternate stack, coroutine): then `hits` may be empty, or lie on the native
 * stack, outside of `stack`.
 */
export interface SuspectThread {
  readonly tid: number;
  /** struct user_regs_struct of <sys/user.h>: 27 words, r15 first. */
  readonly registers: BigUint64Array;
  /** Address of `stack[0]`. */
  readonly stackStart: RemoteAddress;
  readonly stack: Uint8Array;
  readonly hits: readonly {
    readonly address: RemoteAddress;
    readonly value: RemoteAddress;
    readonly range: number;
  }[];
}

export interface CommitRequest {
  readonly writes: readonly PlannedWrite[];
  /** No thread may be inside any of these (old functions, old images). */
  readonly guarded: readonly RemoteRange[];
  readonly states: readonly PlannedState[];
  readonly timeoutMs: number;
  /** Called while the thread is stopped; true = the words are stale, the thread is clear. */
  readonly examine: (thread: SuspectThread) => boolean;
}

export interface CommitStatistics {
  readonly threads: number;
  readonly runningThreads: number;
  /** Longest time from the stop request to the release of a thread that was running, nanoseconds. */
  readonly runningPauseNs: number;
  /** The same for any thread. */
  readonly longestPauseNs: number;
}

export type CommitOutcome =
  | { readonly outcome: 'committed'; readonly statistics: CommitStatistics }
  | {
      readonly outcome: 'busy';
      readonly reason: string;
      readonly statistics: CommitStatistics;
      /** The thread in the way, when a guarded range was the reason. */
      readonly blocker?: {
        readonly tid: number;
        readonly range: number;
        readonly kind: 'instruction' | 'stack';
        /** Inside the range: the instruction pointer, or the return address. */
        readonly address: RemoteAddress;
      };
    }
  /** The bytes at writes[index] were not the expected ones; nothing was written. */
  | { readonly outcome: 'mismatch'; readonly index: number; readonly found: Uint8Array }
  | { readonly outcome: 'gone' };

/** The engine. All calls are synchronous and leave no thread traced when they return, whatever happened. */
export interface NativeEngine {
  /** Makes `calls` in one thread of `pid`, in order, within one stop. The thread restores itself if we die. */
  call(pid: number, calls: readonly RemoteCall[], options: CallOptions): CallOutcome;
  /**
   * A process that uses the memory of `pid` without being one of its threads: a child of vfork(2) while its parent
   * waits, or made by clone(2) with CLONE_VM. A commit is busy as long as there is one, since it cannot stop it.
   */
  findMemorySharer(pid: number): number | undefined;
  /** Stops all threads in two waves, checks, writes, resumes. All or nothing. */
  commit(pid: number, request: CommitRequest): CommitOutcome;
}
