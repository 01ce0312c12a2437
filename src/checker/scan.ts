// The scan: all processes, the files they execute, and what is outdated among them.
import { readdirSync, readFileSync } from 'node:fs';
import { asKcareError, KcareError } from '../base/errors.js';
import { containerIdOf, mappedObjects } from '../proc/index.js';
import { isSuspect, judge } from './judge.js';
import { fixFor, type FeedKnowledge } from './known-fixes.js';
import { noLevels, readLevels, type AppliedLevels } from './levels.js';
import { lookAt } from './mapped-file.js';
import { parseFileKey, type ExecutedFile, type FileName } from './maps-scan.js';
import { isGone, ProcessDirectory } from './process-directory.js';
import type { OutdatedObject, OutdatedProcess, ScanReport, UnexaminedProcess } from './report.js';
import { Views, type LocatedFile, type ProcessView } from './views.js';

export interface ScanOptions {
  /** Only these; absent = all but this one. */
  readonly pids?: readonly number[] | undefined;
  readonly feed: FeedKnowledge;
  /** What else keeps the result from being complete. */
  readonly problems?: readonly KcareError[];
}

/** Looks at processes and changes nothing. What goes wrong with single processes is in the report; never throws because of one. */
export function scan(options: ScanOptions): ScanReport {
  const started = performance.now();
  const scanner = new Scanner(options.feed);
  try {
    for (const pid of options.pids ?? allPids()) scanner.examine(pid, options.pids !== undefined);
    const hidden = options.pids === undefined ? hiddenProcesses() : [];
    return scanner.report([...(options.problems ?? []), ...hidden], started);
  } finally {
    scanner.close();
  }
}

function allPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => name.charCodeAt(0) >= 49 && name.charCodeAt(0) <= 57)
    .map(Number)
    .filter((pid) => pid !== process.pid);
}

class Scanner {
  private readonly views = new Views();
  private readonly outdated: OutdatedProcess[] = [];
  private readonly unexamined: UnexaminedProcess[] = [];
  private processes = 0;

  constructor(private readonly feed: FeedKnowledge) {}

  examine(pid: number, isNamed: boolean): void {
    let directory: ProcessDirectory | undefined;
    try {
      directory = ProcessDirectory.open(pid);
      const isThere = directory !== undefined && this.examineOpen(directory);
      if (!isThere && isNamed)
        throw new KcareError('TARGET_GONE', `Process ${pid} does not exist, or has no memory of its own.`);
    } catch (thrown) {
      // R11: that a process ends while it is read is no error.
      if (isGone(thrown) && !isNamed) return;
      const comm = directory?.comm;
      const error = explained(pid, thrown);
      if (comm === undefined && !isNamed) return;
      // R6: it is not known whether it is up to date.
      this.unexamined.push({ pid, comm: comm ?? '', error });
    } finally {
      directory?.close();
    }
  }

  report(problems: readonly KcareError[], started: number): ScanReport {
    const { feed, outdated, unexamined } = this;
    const byPid = (left: { pid: number }, right: { pid: number }): number => left.pid - right.pid;
    const all = [...problems, ...(feed.state === 'unavailable' ? [feed.error] : []), ...staleness(feed)];
    const complete = all.length === 0 && unexamined.length === 0;
    const files = this.views.all
      .flatMap((view) => [...view.files.values()])
      .filter((file) => file !== undefined);
    return {
      status: outdated.length > 0 ? 'outdated' : complete ? 'clean' : 'incomplete',
      complete,
      problems: all,
      processes: outdated.sort(byPid),
      unexamined: unexamined.sort(byPid),
      examined: {
        processes: this.processes,
        files: files.length,
        containers: this.views.containers,
        filesWithFix: files.filter(({ file }) => fixFor(feed, file.buildId) !== undefined).length,
      },
      feed:
        feed.state === 'known'
          ? {
              patchset: feed.fixes.patchset ?? '',
              expires: feed.fixes.expires,
              fixes: feed.fixes.byBuildId.size,
            }
          : null,
      scanMs: performance.now() - started,
    };
  }

  close(): void {
    this.views.close();
  }

  /** False when there is nothing to examine: a kernel thread, a zombie, or a process that has ended. */
  private examineOpen(directory: ProcessDirectory): boolean {
    const found = directory.maps();
    if (!found) return false;
    const view = this.views.of(found.directory);
    const suspects: LocatedFile[] = [];
    const failures: KcareError[] = [];
    for (const executed of found.maps.files) {
      try {
        const located = this.locate(executed, view, directory.pid, found.directory);
        if (located && isSuspect(located, fixFor(this.feed, located.file.buildId))) suspects.push(located);
      } catch (thrown) {
        failures.push(explained(directory.pid, thrown));
      }
    }
    if (suspects.length > 0) this.judgeProcess(directory, view, found.maps.mayHoldImages, suspects);
    // What was found in the other files counts nevertheless.
    if (failures[0]) throw failures[0];
    this.processes++;
    return true;
  }

  private locate(
    executed: ExecutedFile,
    view: ProcessView,
    pid: number,
    directory: string,
  ): LocatedFile | undefined {
    const known = view.files.get(executed.key);
    if (known !== undefined || view.files.has(executed.key)) return known;
    const name = parseFileKey(executed.key);
    if (!name) {
      view.files.set(executed.key, undefined);
      return undefined;
    }
    return this.lookUp(executed, name, view, pid, directory);
  }

  private lookUp(
    executed: ExecutedFile,
    name: FileName,
    view: ProcessView,
    pid: number,
    directory: string,
  ): LocatedFile | undefined {
    const { root, path } = view.locate(name.path);
    const reading = { isOfThisProcess: false };
    const buildIdInMemory = (): string | undefined => {
      reading.isOfThisProcess = true;
      return buildIdFromMemory(pid, name);
    };
    try {
      const file = lookAt(executed, name, { process: directory, view: root.view, path, buildIdInMemory });
      if (file.state === 'unknown')
        throw new KcareError(
          'NOT_PERMITTED',
          `${file.path}, which process ${pid} executes, may not be read.`,
        );
      const located = { file, root };
      // What one process shows in its memory counts for no other.
      if (!reading.isOfThisProcess) view.files.set(executed.key, located);
      return located;
    } catch (thrown) {
      // The process has ended or does not execute the file any more.
      if (isGone(thrown)) return undefined;
      throw thrown;
    }
  }

  private judgeProcess(
    directory: ProcessDirectory,
    view: ProcessView,
    mayHoldImages: boolean,
    suspects: readonly LocatedFile[],
  ): void {
    const hasFix = suspects.some(({ file }) => fixFor(this.feed, file.buildId) !== undefined);
    const levels: AppliedLevels = mayHoldImages && hasFix ? readLevels(directory.pid) : noLevels;
    const objects = suspects.flatMap((located): OutdatedObject[] => {
      const object = judge(located, levels.of(located.file.buildId ?? ''), this.feed);
      return object ? [object] : [];
    });
    if (objects.length === 0) return;
    const comm = directory.comm;
    // It ended; levels may even be those of another process that has its id now.
    if (comm === undefined) return;
    const { distribution } = view.root;
    const container = view.mountNamespace === this.views.own ? undefined : containerOf(directory, view);
    this.outdated.push({
      pid: directory.pid,
      comm,
      ...(distribution && { distribution }),
      ...(container !== undefined && { container }),
      objects,
    });
  }
}

function buildIdFromMemory(pid: number, { major, minor, inode }: FileName): string | undefined {
  const device = (value: string): string =>
    value
      .split(':')
      .map((part) => parseInt(part, 16))
      .join(':');
  const found = mappedObjects(pid).find(
    (object) => BigInt(object.inode) === inode && device(object.device) === `${major}:${minor}`,
  );
  return found?.buildId === '' ? undefined : found?.buildId;
}

/** Its id, else the mount namespace. */
function containerOf(directory: ProcessDirectory, view: ProcessView): string {
  return containerIdOf(directory.text('cgroup') ?? '') ?? view.mountNamespace;
}

function explained(pid: number, thrown: unknown): KcareError {
  const error = asKcareError(thrown);
  if (error.code !== 'NOT_PERMITTED' || thrown instanceof KcareError) return error;
  return new KcareError('NOT_PERMITTED', `Process ${pid} may not be examined by this user.`, { pid });
}

/** Where proc is mounted with hidepid, a user sees no processes of others at all. */
function hiddenProcesses(): KcareError[] {
  if (process.geteuid?.() === 0) return [];
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const own = mounts.find((line) => line.split(' ')[4] === '/proc');
  if (own === undefined || !/hidepid=(?!0|off)/.test(own)) return [];
  return [
    new KcareError('NOT_PERMITTED', 'The processes of other users are hidden from this one (hidepid).'),
  ];
}

/** R6: what expired metadata does not list may have a fix by now. */
function staleness(feed: FeedKnowledge): KcareError[] {
  if (feed.state !== 'known' || Date.parse(feed.fixes.expires) > Date.now()) return [];
  const text = `What is known of the feed has expired on ${feed.fixes.expires}: newer fixes may exist.`;
  return [new KcareError('FEED_EXPIRED', text)];
}
