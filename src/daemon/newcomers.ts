// Brings processes to the standing patchset, one after the other, as they are heard of.
import { setImmediate as turnOfEventLoop, setTimeout as sleep } from 'node:timers/promises';
import { asKcareError, type KcareError } from '../base/errors.js';
import { tryGate, type PatchToApply } from '../engine/index.js';
import {
  bringNewcomer,
  isLeftBehind,
  isOpen,
  lookAtNewcomer,
  type HostProcess,
  type Newcomer,
  type NewcomerRules,
  type ProcessOutcome,
} from '../host/index.js';

/** The gate is passed for this long at a time, milliseconds, so that an unload can close it. */
const sliceMs = 20;
const closedGateMs = 20;
/** A process that is busy is come back to after 1, 2, 4, … milliseconds, up to this long, and this often. */
const longestPauseMs = 1000;
const mostReturns = 16;
/** What refuses at first may only be beginning. */
const returnsOfRefused = 3;
const refusedPauseMs = 50;

/** Where the newcomers' patches come from, and who hears what became of them. */
export interface NewcomerWork extends NewcomerRules {
  readonly intentDirectory: string;
  /** Milliseconds since 1970. */
  readonly expires: number;
  patch(buildId: string): PatchToApply | undefined;
  /** Asked behind the gate, now and then: false when what is said here may be out of date. */
  isCurrent(): boolean | Promise<boolean>;
  seen(process: HostProcess): void;
  /** Called when nothing more is tried; `undefined`: the process needs nothing any more. */
  settled(pid: number, outcome: ProcessOutcome | undefined): void;
  /** These patches are needed and not there. */
  missing(pid: number, buildIds: readonly string[]): void;
}

/** Who opened a library has not mapped it yet: it is looked at again after these times, milliseconds. */
const mappingPausesMs = [1, 4, 16];

interface Return {
  readonly count: number;
  /** Build-ids that are to be worked on even though they are in place. */
  readonly open: readonly string[];
}

export class Newcomers {
  private readonly waiting = new Set<number>();
  private readonly returns = new Map<number, Return>();
  /** Processes that opened a library, with the number of looks since. */
  private readonly expected = new Map<number, number>();
  private readonly timers = new Set<NodeJS.Timeout>();
  private isRunning = false;
  private isEnded = false;

  /** `outdated` is called when the work is no longer current: then nothing is done until there are new newcomers. */
  constructor(
    private readonly work: NewcomerWork,
    private readonly outdated: () => void,
  ) {}

  get count(): number {
    return this.waiting.size + this.timers.size;
  }

  add(pids: Iterable<number>): void {
    if (this.isEnded) return;
    for (const pid of pids) this.waiting.add(pid);
    if (this.waiting.size > 0 && !this.isRunning) void this.run();
  }

  /** Processes that opened a library that is patched. */
  expect(pids: readonly number[]): void {
    for (const pid of pids) this.expected.set(pid, 0);
    this.add(pids);
  }

  /** The processes that were not come to. */
  end(): number[] {
    this.isEnded = true;
    for (const timer of this.timers) clearTimeout(timer);
    return [...this.waiting, ...this.returns.keys(), ...this.expected.keys()];
  }

  private async run(): Promise<void> {
    this.isRunning = true;
    try {
      while (this.waiting.size > 0 && !this.isEnded) {
        const leave = tryGate(this.work.intentDirectory);
        if (leave) {
          try {
            await this.slice();
          } finally {
            leave();
          }
          await turnOfEventLoop();
        } else await sleep(closedGateMs);
      }
    } finally {
      this.isRunning = false;
    }
  }

  private async slice(): Promise<void> {
    if (!(await this.work.isCurrent()) || Date.now() >= this.work.expires) {
      this.end();
      this.outdated();
      return;
    }
    const until = performance.now() + sliceMs;
    for (const pid of this.waiting) {
      this.waiting.delete(pid);
      try {
        await this.attempt(pid);
      } catch (thrown) {
        // A defect at one process must not keep the others from being patched.
        this.settle(pid, failed(pid, asKcareError(thrown), 'failed'));
      }
      if (performance.now() >= until || this.isEnded) break;
    }
  }

  private async attempt(pid: number): Promise<void> {
    let newcomer: Newcomer | undefined;
    try {
      newcomer = lookAtNewcomer(pid, this.work);
    } catch (thrown) {
      const error = asKcareError(thrown);
      this.conclude(failed(pid, error, 'unreadable'), []);
      return;
    }
    if (newcomer) this.work.seen(newcomer.process);
    const { open = [] } = this.returns.get(pid) ?? {};
    const wanted = [...new Set([...(newcomer?.lacking ?? []), ...open])];
    if (!newcomer || wanted.length === 0) {
      if (!this.expectsMore(pid)) this.settle(pid, undefined);
      return;
    }
    this.expected.delete(pid);
    const patches = wanted.flatMap((buildId) => this.work.patch(buildId) ?? []);
    const found = new Set(patches.map(({ patch }) => patch.buildId));
    const missing = wanted.filter((buildId) => !found.has(buildId));
    if (missing.length > 0) this.work.missing(pid, missing);
    if (patches.length === 0) return;
    this.conclude(await bringNewcomer(newcomer, patches, this.work.intentDirectory), wanted);
  }

  /** Comes back, or lets it be. */
  private conclude(outcome: ProcessOutcome, wanted: readonly string[]): void {
    const { pid } = outcome;
    const { count = 0 } = this.returns.get(pid) ?? {};
    const isToFollow = isOpen(outcome) && count < mostReturns;
    const isToTryAgain = outcome.result !== 'busy' && isLeftBehind(outcome) && count < returnsOfRefused;
    if (!isToFollow && !isToTryAgain) {
      this.settle(pid, outcome);
      return;
    }
    this.returns.set(pid, { count: count + 1, open: isOpen(outcome) ? wanted : [] });
    this.comeBack(pid, isToFollow ? Math.min(longestPauseMs, 2 ** count) : refusedPauseMs);
  }

  private comeBack(pid: number, pauseMs: number): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      this.add([pid]);
    }, pauseMs);
    this.timers.add(timer);
  }

  private expectsMore(pid: number): boolean {
    const looks = this.expected.get(pid);
    const pauseMs = looks === undefined ? undefined : mappingPausesMs[looks];
    if (looks === undefined || pauseMs === undefined) {
      this.expected.delete(pid);
      return false;
    }
    this.expected.set(pid, looks + 1);
    this.comeBack(pid, pauseMs);
    return true;
  }

  private settle(pid: number, outcome: ProcessOutcome | undefined): void {
    this.returns.delete(pid);
    this.expected.delete(pid);
    this.work.settled(pid, outcome);
  }
}

function failed(pid: number, error: KcareError, result: 'failed' | 'unreadable'): ProcessOutcome {
  return { pid, comm: '', result, objects: [], error, wallMs: 0 };
}
