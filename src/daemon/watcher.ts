// Patches processes as they begin, and libraries as they are loaded later: by the host's events, and by sweeps for what
// those missed (docs/libcare-server.md).
import { lstatSync, watch as watchDirectory, type FSWatcher } from 'node:fs';
import { dirname } from 'node:path';
import { watchHost, type HostWatch } from '../addon/host.js';
import { noteNewcomers, openBlacklist, standingStamp, type Agent, type Standing } from '../agent/index.js';
import { asKcareError, KcareError } from '../base/errors.js';
import { safeDirectory } from '../base/safe-files.js';
import { isLeftBehind, readOutcomes, type OutcomeRecord, type ProcessOutcome } from '../host/index.js';
import { listProcesses } from '../proc/index.js';
import { Delayed } from './delayed.js';
import type { Jobs } from './jobs.js';
import { MissingPatches } from './missing-patches.js';
import { Newcomers, type NewcomerWork } from './newcomers.js';
import { PatchShelf } from './patch-shelf.js';
import { standingShape } from './standing-shape.js';
import { WatchedFiles } from './watched-files.js';

/** A process that lives this long is looked at even when nothing was heard of its files, milliseconds. */
const lookMs = 50;
/** Without events of the host. */
const sweepMs = 10_000;
const noteMs = 1_000;
/** Processes that were left behind, and are heard of again when that is over. */
const mostNoted = 4096;

interface Active {
  readonly standing: Extract<Standing, { isOn: true }>;
  readonly files: WatchedFiles;
  readonly newcomers: Newcomers;
}

export interface WatcherStatus {
  readonly state: 'on' | 'off';
  /** Why it is off; "" while it is on. */
  readonly reason: string;
  readonly patchset: string;
  readonly expires: string;
  /** "" for sources that work, else why not. */
  readonly sources: { readonly processes: string; readonly files: string };
  readonly files: number;
  readonly waiting: number;
  readonly counts: Readonly<Record<'begun' | 'touched' | 'sweeps' | 'patched' | 'left' | 'lost', number>>;
}

export class Watcher {
  private readonly counts = { begun: 0, touched: 0, sweeps: 0, patched: 0, left: 0, lost: 0 };
  private readonly looks = new Delayed(lookMs, (pids) =>
    this.active?.newcomers.add(pids.filter((pid) => !this.done.delete(pid))),
  );
  /** Processes that were patched before the look at them was due. */
  private readonly done = new Set<number>();
  private readonly directories: FSWatcher[] = [];
  private readonly missing = new MissingPatches(
    (buildIds) => this.fetch(buildIds),
    (pids) => this.active?.newcomers.add(pids),
  );
  /** Processes of which it was noted that they were left behind. */
  private readonly noted = new Set<number>();
  private toNote: ProcessOutcome[] = [];
  private noteTimer: NodeJS.Timeout | undefined;
  private sweepTimer: NodeJS.Timeout | undefined;
  private source: HostWatch | undefined;
  private hasEnded = false;
  private active: Active | undefined;
  private reason = 'It has not begun.';
  private stamp = '';
  private outcomesStamp = '';
  private outcomes: ReadonlyMap<number, OutcomeRecord> = new Map();
  private refreshing: Promise<void> | undefined;
  private isClosed = false;

  constructor(
    private readonly agent: Agent,
    private readonly jobs: Jobs,
  ) {}

  /** Throws UNSAFE_MODE. */
  async start(): Promise<void> {
    const { standing, config } = this.agent.paths;
    for (const directory of new Set([dirname(standing), dirname(config)])) {
      await safeDirectory(directory);
      const watched = watchDirectory(directory, () => this.refreshIfChanged());
      // Gone, as after the package was removed: what is known stays.
      watched.on('error', () => watched.close());
      this.directories.push(watched);
    }
    this.refresh();
  }

  async close(): Promise<void> {
    this.isClosed = true;
    for (const directory of this.directories) directory.close();
    this.stop('It was stopped.');
    clearTimeout(this.noteTimer);
    await this.refreshing;
    await this.writeNotes();
  }

  get status(): WatcherStatus {
    const { active, source } = this;
    return {
      state: active ? 'on' : 'off',
      reason: active ? '' : this.reason,
      patchset: active?.standing.patchset ?? '',
      expires: active?.standing.expires ?? '',
      sources: {
        processes: this.hasEnded ? 'it broke' : nameOf(source?.processesError),
        files: this.hasEnded ? 'it broke' : nameOf(source?.filesError, active?.files.problem),
      },
      files: active?.files.count ?? 0,
      waiting: active?.newcomers.count ?? 0,
      counts: { ...this.counts },
    };
  }

  private refreshIfChanged(): void {
    if (standingStamp(this.agent.paths) !== this.stamp) this.refresh();
  }

  /** Finds out anew what new processes get. One at a time; what changes meanwhile is seen by its stamp. */
  private refresh(): void {
    if (this.isClosed || this.refreshing) return;
    this.refreshing = this.readAnew().finally(() => {
      this.refreshing = undefined;
      this.refreshIfChanged();
    });
  }

  private async readAnew(): Promise<void> {
    const { agent } = this;
    this.stamp = standingStamp(agent.paths);
    try {
      const job = this.jobs.start({ job: 'standing' }, () => undefined);
      const standing = standingShape(await job.result);
      const { blacklist } = await openBlacklist(agent.paths);
      this.outcomes = await readOutcomes(agent.paths.outcomes);
      if (this.isClosed) return;
      if (standing.isOn) this.begin(standing, blacklist);
      else this.stop(standing.reason);
    } catch (thrown) {
      const error = asKcareError(thrown);
      this.stop(`${error.code}: ${error.message}`);
      agent.logger.warn({ error: error.toJSON() }, 'new processes are not patched');
    }
  }

  private begin(standing: Active['standing'], blacklist: NewcomerWork['blacklist']): void {
    const before = this.active?.newcomers.end() ?? [];
    // They belong to the patchset before; the sweep below finds who lacks what of this one.
    this.missing.clear();
    const source = (this.source ??= this.listen());
    const shelf = new PatchShelf(standing);
    const isWanted = (buildId: string): boolean => shelf.levels.has(buildId);
    const files = new WatchedFiles(source, isWanted, () => this.sweepRegularly());
    const work: NewcomerWork = {
      levels: shelf.levels,
      blacklist,
      intentDirectory: this.agent.paths.intents,
      expires: shelf.expires,
      outcomes: { get: (pid: number) => this.outcomes.get(pid) },
      patch: (buildId) => shelf.get(buildId),
      isCurrent: () => this.isCurrent(),
      seen: (process) => files.add(process),
      settled: (pid, outcome) => this.settled(pid, outcome),
      missing: (pid, buildIds) => standing.mayFetch && this.missing.add(pid, buildIds),
    };
    const newcomers = new Newcomers(work, () => this.outdated());
    this.active = { standing, files, newcomers };
    this.agent.logger.info({ patchset: standing.patchset, sources: this.status.sources }, 'watching');
    newcomers.add(before);
    this.sweep();
    this.endSweeps();
    if (source.processesError !== 0 || source.filesError !== 0 || this.hasEnded) this.sweepRegularly();
  }

  private stop(reason: string): void {
    this.reason = reason;
    this.active?.newcomers.end();
    this.active = undefined;
    this.looks.clear();
    this.done.clear();
    this.missing.clear();
    this.endSweeps();
    this.source?.stop();
    this.source = undefined;
    this.hasEnded = false;
  }

  /** Also when the metadata has expired: then it is read again, and says so. */
  private outdated(): void {
    // Seen when a refresh that goes on ends, too.
    this.stamp = '';
    this.refresh();
  }

  private listen(): HostWatch {
    return watchHost((begun, touched, lost, ended) => {
      this.counts.begun += begun.length;
      this.counts.touched += touched.length;
      this.looks.add(begun);
      // Another program is another process.
      for (const pid of begun) this.done.delete(pid);
      this.active?.newcomers.expect(touched);
      if (lost) this.counts.lost++;
      if (ended && !this.hasEnded) {
        this.hasEnded = true;
        this.agent.logger.error('events of the host ended; processes are looked for every 10 s');
        this.sweepRegularly();
      }
      if (lost || ended) this.sweep();
    });
  }

  private sweep(): void {
    this.counts.sweeps++;
    this.active?.newcomers.add(listProcesses());
  }

  /** Where something happens that no event tells of. */
  private sweepRegularly(): void {
    this.sweepTimer ??= setInterval(() => this.sweep(), sweepMs);
  }

  private endSweeps(): void {
    clearInterval(this.sweepTimer);
    this.sweepTimer = undefined;
  }

  private async isCurrent(): Promise<boolean> {
    const { paths } = this.agent;
    if (standingStamp(paths) !== this.stamp) return false;
    const status = lstatSync(paths.outcomes, { bigint: true, throwIfNoEntry: false });
    const stamp = status ? `${status.ino}:${status.mtimeNs}` : '';
    if (stamp === this.outcomesStamp) return true;
    try {
      this.outcomes = await readOutcomes(paths.outcomes);
      this.outcomesStamp = stamp;
      return true;
    } catch {
      // Reading everything anew says what is wrong.
      return false;
    }
  }

  private settled(pid: number, outcome: ProcessOutcome | undefined): void {
    if (outcome?.result === 'applied' || outcome?.result === 'upgraded') {
      this.counts.patched++;
      if (this.looks.has(pid)) this.done.add(pid);
    }
    const isLeft = outcome !== undefined && isLeftBehind(outcome);
    // Who cannot be looked at by root cannot be told from one that needs nothing.
    if (isLeft && outcome.result !== 'unreadable') {
      this.counts.left++;
      this.remember(pid);
      const { comm, result, error } = outcome;
      this.agent.logger.warn({ target: pid, comm, outcome: result, error: error?.toJSON() }, 'new process');
      this.note(outcome);
    } else if (outcome && this.noted.delete(pid)) this.note(outcome);
  }

  /** Most of them end without a word: the oldest are forgotten. */
  private remember(pid: number): void {
    this.noted.delete(pid);
    this.noted.add(pid);
    const [oldest] = this.noted;
    if (this.noted.size > mostNoted && oldest !== undefined) this.noted.delete(oldest);
  }

  private note(outcome: ProcessOutcome): void {
    this.toNote.push(outcome);
    this.noteTimer ??= setTimeout(() => void this.writeNotes(), noteMs);
  }

  private async writeNotes(): Promise<void> {
    this.noteTimer = undefined;
    const outcomes = this.toNote.splice(0);
    if (outcomes.length > 0) await noteNewcomers(this.agent, outcomes, this.active?.standing.patchset ?? '');
  }

  private async fetch(buildIds: readonly string[]): Promise<void> {
    try {
      await this.jobs.start({ job: 'fetch', buildIds }, () => undefined).result;
    } catch (thrown) {
      const error = thrown instanceof KcareError ? thrown.toJSON() : String(thrown);
      this.agent.logger.warn({ buildIds, error }, 'patches for new processes could not be fetched');
    }
  }
}

/** Of the first one that is an error. */
function nameOf(...errnos: readonly (number | undefined)[]): string {
  const errno = errnos.find((one) => one !== undefined && one !== 0);
  return errno === undefined ? '' : `errno ${errno}`;
}
