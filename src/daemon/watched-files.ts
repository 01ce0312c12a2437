// The library files whose use is reported: every file of which a process executes an object with a wanted build-id.
import { statSync } from 'node:fs';
import { constants } from 'node:os';
import type { HostWatch } from '../addon/host.js';
import type { HostProcess } from '../host/index.js';
import type { MappedObject } from '../proc/index.js';

/** Each costs the kernel some hundred bytes; containers come and go. */
const mostFiles = 16_384;

export class WatchedFiles {
  private readonly known = new Set<string>();
  private firstProblem = 0;

  constructor(
    private readonly watch: Pick<HostWatch, 'mark'>,
    private readonly isWanted: (buildId: string) => boolean,
  ) {}

  get count(): number {
    return this.known.size;
  }

  /** Errno value of the first file that could not be watched; 0 when there is none. */
  get problem(): number {
    return this.firstProblem;
  }

  /** Watches the files of the process's wanted objects, as it sees them itself. */
  add({ pid, objects }: HostProcess): void {
    for (const object of objects) {
      const key = `${object.device} ${object.inode}`;
      if (this.known.has(key) || !this.isWanted(object.buildId)) continue;
      // A process that has ended shows no files: the next one that uses this one does.
      if (!pathsOf(pid, object).every((path) => this.mark(path))) continue;
      if (this.known.size >= mostFiles) this.known.clear();
      this.known.add(key);
    }
  }

  /** False when there is no such file. */
  private mark(path: string): boolean {
    if (!isFile(path)) return false;
    const problem = this.watch.mark(path);
    // Gone since.
    if (problem === constants.errno.ENOENT || problem === constants.errno.ESRCH) return false;
    if (this.firstProblem === 0) this.firstProblem = problem;
    return true;
  }
}

/** What a process shows as its root may lead anywhere, and may be gone by now. */
function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** On an overlay, the file that is mapped and the file that is opened are different ones. */
function pathsOf(pid: number, { path, deleted, mappings }: MappedObject): string[] {
  const [first] = mappings;
  const range = first ? `${first.start.toString(16)}-${first.end.toString(16)}` : '';
  return [`/proc/${pid}/map_files/${range}`, ...(deleted ? [] : [`/proc/${pid}/root${path}`])];
}
