// The library files whose use is reported: every file of which a process executes an object with a wanted build-id.
import os from 'node:os';
import type { HostWatch } from '../addon/host.js';
import type { HostProcess } from '../host/index.js';
import type { MappedObject } from '../proc/index.js';

/** Each costs the kernel some hundred bytes; containers come and go. */
const mostFiles = 16_384;
/** The numbers of a file are given to another one when it is gone: it is marked anew after this time, milliseconds. */
const rememberedMs = 5_000;

const { ENOENT, ESRCH, EBADF } = os.constants.errno;
/** The process, or the watch, has ended. */
const isOver = new Set<number>([ENOENT, ESRCH, EBADF]);

export class WatchedFiles {
  /** When each was marked, the oldest first. */
  private readonly marked = new Map<string, number>();
  private firstProblem = 0;

  /** `unwatchable` is called when use of a file cannot be reported. */
  constructor(
    private readonly watch: Pick<HostWatch, 'mark'>,
    private readonly isWanted: (buildId: string) => boolean,
    private readonly unwatchable: () => void,
  ) {}

  get count(): number {
    return this.marked.size;
  }

  /** Errno value of the first file that could not be watched; 0 when there is none. */
  get problem(): number {
    return this.firstProblem;
  }

  /** Watches the files of the process's wanted objects. */
  add({ pid, objects }: HostProcess): void {
    for (const object of objects) {
      const key = `${object.device} ${object.inode}`;
      const now = performance.now();
      if (!this.isWanted(object.buildId) || now - (this.marked.get(key) ?? -Infinity) < rememberedMs)
        continue;
      const problem = this.mark(pid, object);
      if (isOver.has(problem)) continue;
      this.remember(key, now);
      // Nobody finds a file that is deleted any more.
      if (problem !== 0 && !object.deleted) this.miss(problem);
    }
  }

  private mark(pid: number, { path, deleted, mappings }: MappedObject): number {
    const [first] = mappings;
    const range = first ? `${first.start.toString(16)}-${first.end.toString(16)}` : '';
    return this.watch.mark(`/proc/${pid}/map_files/${range}`, `/proc/${pid}/root`, deleted ? '' : path);
  }

  private remember(key: string, now: number): void {
    this.marked.delete(key);
    this.marked.set(key, now);
    const [oldest] = this.marked.keys();
    if (this.marked.size > mostFiles && oldest !== undefined) this.marked.delete(oldest);
  }

  private miss(problem: number): void {
    if (this.firstProblem !== 0) return;
    this.firstProblem = problem;
    this.unwatchable();
  }
}
