// Files below the root directory of another process, which may be a hostile container: no link leads out of it.
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type BigIntStats,
} from 'node:fs';
import { KcareError } from '../base/errors.js';
import { systemCode } from '../proc/index.js';

/** open(2), x86-64 and most others; Node.js does not name it. */
const pathOnly = 0o10000000;
const mostLinks = 40;
const mostLevels = 256;

export interface OpenedFile {
  readonly descriptor: number;
  readonly status: BigIntStats;
}

/**
 * A root directory, held open. Paths are Latin-1, so that any bytes survive. Every component is opened by itself, never
 * followed as a link by the kernel: links are resolved here, within the root, and what is opened for reading is a plain
 * file that cannot be exchanged meanwhile.
 */
export class RootView {
  private constructor(private readonly root: number) {}

  /** `path` may be a link of /proc to a root. The inverse is {@link close}. Throws the system's errors. */
  static open(path: string): RootView {
    return new RootView(openSync(path, pathOnly | constants.O_DIRECTORY));
  }

  /** The top of the mount tree in which the root lies: what a process saw before it called chroot(2). */
  openTop(): RootView {
    let current = openSync(`/proc/self/fd/${this.root}`, pathOnly | constants.O_DIRECTORY);
    for (let level = 0; level < mostLevels; level++) {
      const parent = openSync(`/proc/self/fd/${current}/..`, pathOnly | constants.O_DIRECTORY);
      const isTop = sameFile(fstatSync(current, { bigint: true }), fstatSync(parent, { bigint: true }));
      closeSync(current);
      current = parent;
      if (isTop) break;
    }
    return new RootView(current);
  }

  /** Names the directory itself. */
  get identity(): string {
    const { dev, ino } = fstatSync(this.root, { bigint: true });
    return `${dev}:${ino}`;
  }

  /** Opens a plain file for reading; undefined when there is none. Throws NOT_PERMITTED and other errors of the system. */
  openFile(path: string): OpenedFile | undefined {
    const found = this.find(path);
    if (found === undefined) return undefined;
    try {
      if (!fstatSync(found).isFile()) return undefined;
      const descriptor = openSync(`/proc/self/fd/${found}`, constants.O_RDONLY | constants.O_NONBLOCK);
      return { descriptor, status: fstatSync(descriptor, { bigint: true }) };
    } finally {
      closeSync(found);
    }
  }

  /** A whole file; undefined when there is none, or one of more than `longest` bytes. */
  read(path: string, longest: number): Buffer | undefined {
    const file = this.openFile(path);
    if (!file) return undefined;
    try {
      return readWhole(file, longest);
    } finally {
      closeSync(file.descriptor);
    }
  }

  /** The last `longest` bytes of a file. */
  readEnd(path: string, longest: number): Buffer | undefined {
    const file = this.openFile(path);
    if (!file) return undefined;
    try {
      const size = Number(file.status.size);
      const start = Math.max(0, size - longest);
      return readAt(file.descriptor, start, size - start);
    } finally {
      closeSync(file.descriptor);
    }
  }

  /**
   * Calls `visit` with the plain files of a directory whose names end with `suffix`, until it returns false; files of
   * more than `longest` bytes are left out. False when there is no such directory.
   */
  visitFiles(
    path: string,
    suffix: string,
    longest: number,
    visit: (name: string, bytes: Buffer) => boolean,
  ): boolean {
    const directory = this.find(path);
    if (directory === undefined) return false;
    try {
      if (!fstatSync(directory).isDirectory()) return false;
      const names = readdirSync(`/proc/self/fd/${directory}`, 'latin1');
      for (const name of names) {
        if (!name.endsWith(suffix)) continue;
        const bytes = readEntry(directory, name, longest);
        if (bytes && !visit(name, bytes)) break;
      }
      return true;
    } finally {
      closeSync(directory);
    }
  }

  close(): void {
    closeSync(this.root);
  }

  /** A descriptor that only names what lies at `path`. */
  private find(path: string): number | undefined {
    const waiting = components(path);
    /** Open directories from the root down to where we are. */
    const above: number[] = [];
    let links = 0;
    try {
      for (;;) {
        const name = waiting.shift();
        const here = above.at(-1) ?? this.root;
        if (name === undefined) return above.pop() ?? openSync(`/proc/self/fd/${here}`, pathOnly);
        if (name === '..') {
          const left = above.pop();
          if (left !== undefined) closeSync(left);
          continue;
        }
        const entry = child(here, name);
        const next = openIfThere(entry, pathOnly | constants.O_NOFOLLOW);
        if (next === undefined) return undefined;
        above.push(next);
        if (above.length > mostLevels) return undefined;
        if (!fstatSync(next).isSymbolicLink()) continue;
        if (++links > mostLinks) return undefined;
        above.pop();
        closeSync(next);
        const target = readlinkSync(entry, 'latin1');
        if (target.startsWith('/')) above.splice(0).forEach((descriptor) => closeSync(descriptor));
        waiting.unshift(...components(target));
      }
    } catch (thrown) {
      if (isAbsence(thrown)) return undefined;
      throw named(thrown, path);
    } finally {
      above.forEach((descriptor) => closeSync(descriptor));
    }
  }
}

export function sameFile(left: BigIntStats, right: BigIntStats): boolean {
  return left.dev === right.dev && left.ino === right.ino;
}

/** Up to `length` bytes at `position`; fewer at the end of the file. */
export function readAt(descriptor: number, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const count = readSync(descriptor, bytes, filled, length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return bytes.subarray(0, filled);
}

function readWhole({ descriptor, status }: OpenedFile, longest: number): Buffer | undefined {
  return status.size > BigInt(longest) ? undefined : readAt(descriptor, 0, Number(status.size));
}

function readEntry(directory: number, name: string, longest: number): Buffer | undefined {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const found = openIfThere(child(directory, name), pathOnly | constants.O_NOFOLLOW);
  if (found === undefined) return undefined;
  try {
    if (!fstatSync(found).isFile()) return undefined;
    const descriptor = openSync(`/proc/self/fd/${found}`, flags & ~constants.O_NOFOLLOW);
    try {
      return readWhole({ descriptor, status: fstatSync(descriptor, { bigint: true }) }, longest);
    } finally {
      closeSync(descriptor);
    }
  } finally {
    closeSync(found);
  }
}

function child(directory: number, name: string): Buffer {
  return Buffer.from(`/proc/self/fd/${directory}/${name}`, 'latin1');
}

function components(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.');
}

function openIfThere(path: Buffer, flags: number): number | undefined {
  try {
    return openSync(path, flags);
  } catch (thrown) {
    if (isAbsence(thrown)) return undefined;
    throw thrown;
  }
}

function isAbsence(thrown: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ELOOP', 'ERR_INVALID_ARG_VALUE'].includes(
    systemCode(thrown) ?? '',
  );
}

function named(thrown: unknown, path: string): unknown {
  const code = systemCode(thrown);
  if (code !== 'EACCES' && code !== 'EPERM') return thrown;
  return new KcareError(
    'NOT_PERMITTED',
    `${path} may not be read by this user.`,
    { path },
    { cause: thrown },
  );
}
