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
  /** Descriptor of a file whose first byte becomes "1" at the last moment at which the call is not yet certain to be made. */
  readonly intent?: number;
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

/** A function of the target, called as a signal handler would be: on the stack of a thread, below its red zone. */
export interface FunctionCall {
  /** Executable code of the target; the caller answers for what it does. */
  readonly function: RemoteAddress;
  /** At most six words. */
  readonly arguments: readonly bigint[];
  /** Bytes of stack that it may use; threads that do not have them are passed over. */
  readonly stackDepth: number;
}

export interface FunctionOptions extends CallOptions {
  /** Called while the thread is stopped, with no hits; true = the function may interrupt it there. */
  readonly choose: (thread: SuspectThread) => boolean;
}

export type FunctionOutcome =
  /** The pause is that of the one thread that was borrowed. */
  | {
      readonly outcome: 'returned';
      readonly tid: number;
      readonly pauseNs: number;
      readonly wasRunning: boolean;
    }
  /** A thread is still in the function, and will be itself again when that returns. */
  | { readonly outcome: 'unfinished'; readonly reason: string }
  /** No thread was chosen; nothing has been done. */
  | { readonly outcome: 'busy'; readonly reason: string }
  | { readonly outcome: 'gone' };

/**
 * A stopped thread whose stack holds words that could be return addresses into a guarded range; or one that is not on
 * its native stack (signal handler on an alternate stack, coroutine): then `hits` may be empty, or lie on the native
 * stack, outside of `stack`.
 */
export interface SuspectThread {
  /** 0 for a suspended context. */
  readonly tid: number;
  /** Where a suspended context was saved; absent for a thread. Of its registers only rbx, rbp, r12–r15, rsp, rip are known. */
  readonly context?: RemoteAddress;
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

/** What a commit looks for in the memory that the process has written, beside its threads. */
export interface MemorySearch {
  /** Registers saved by swapcontext, makecontext or setjmp: nobody may go on there inside a guarded range. */
  readonly contexts: boolean;
  /** What the C library mangles saved addresses with; 0n for none. */
  readonly pointerGuard: bigint;
  /** No word of memory and no register may point into these; looked for in the stop itself. */
  readonly unreferenced: readonly RemoteRange[];
  /** Memory of ours, where what points into them does not count. */
  readonly own: readonly RemoteRange[];
  /** Bytes. With more memory written, nothing is searched in a stop, and the commit is busy. */
  readonly largestSearch: number;
}

/**
 * Code in the target that does some work once, as soon as the word at `record` is 1, makes that 2 meanwhile and 3 at the
 * end; `wait` returns when it is neither 1 nor 2. If we die, all threads but the one that works wait in there.
 */
export interface HeldFunction {
  readonly work: RemoteAddress;
  readonly wait: RemoteAddress;
  readonly record: RemoteAddress;
  readonly stackDepth: number;
  /** As in {@link CallOptions}. */
  readonly signalReturn: RemoteAddress;
}

export interface CommitRequest {
  readonly writes: readonly PlannedWrite[];
  /** No thread may be inside any of these (old functions, old images). */
  readonly guarded: readonly RemoteRange[];
  readonly states: readonly PlannedState[];
  readonly search?: MemorySearch;
  /** Run behind the writes, while all threads stand. */
  readonly held?: HeldFunction;
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
  | {
      readonly outcome: 'committed';
      readonly statistics: CommitStatistics;
      /** The held function did not return in time: the threads wait for its end, and go on by themselves. */
      readonly unfinished: boolean;
    }
  | {
      readonly outcome: 'busy';
      readonly reason: string;
      readonly statistics: CommitStatistics;
      /** Something points into a range that must be unreferenced, or that cannot be found out; waiting does not help. */
      readonly referenced: boolean;
      /** The thread in the way, when a guarded range was the reason. */
      readonly blocker?: {
        /** 0 for a suspended context, which was saved at `context`. */
        readonly tid: number;
        readonly context?: RemoteAddress;
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
   * Calls a function in the first thread that is chosen; each is looked at once. The others run meanwhile, since one of
   * them may hold a lock that the function takes. The thread finishes and restores itself if we die.
   */
  callFunction(pid: number, call: FunctionCall, options: FunctionOptions): FunctionOutcome;
  /**
   * A process that uses the memory of `pid` without being one of its threads: a child of vfork(2) while its parent
   * waits, or made by clone(2) with CLONE_VM. A commit is busy as long as there is one, since it cannot stop it.
   */
  findMemorySharer(pid: number): number | undefined;
  /**
   * An address within `search.unreferenced` to which a word in the memory of the process points; undefined when there is
   * none, or more memory than `search.largestSearch`. Stops nothing, so words of stacks count whether they are dead or not.
   */
  findPointer(pid: number, search: MemorySearch): RemoteAddress | undefined;
  /** How many ptrace(2) requests were made so far, for all targets together (R8). */
  ptraceRequests(): number;
  /** Stops all threads in two waves, checks, writes, resumes. All or nothing. */
  commit(pid: number, request: CommitRequest): CommitOutcome;
}
