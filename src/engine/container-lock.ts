// The lock that a kcare inside of a container takes for a process, seen from outside of it: the two must not meet (R1).
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { readProcessFile, readProcessLink, readStatus } from '../proc/index.js';

export interface ProcessLock {
  readonly file: number;
  /** Which byte of the file stands for the process. */
  readonly byte: number;
  /** Of a container, where anybody may hold it. */
  readonly isInside: boolean;
}

/** open(2), x86-64 and most others; Node.js does not name it. */
const pathOnly = 0o10000000;
/** The way from a root directory to the locks of root's own journal. */
const directories = ['run', 'kcare'] as const;
const lockFile = 'intents.lock';

/**
 * Undefined for a process that shares its mounts with this one, and where no kcare is at work inside. Nothing but a
 * plain file is opened, and no link is followed: the container may be hostile. Throws TARGET_GONE.
 */
export function lockInContainer(pid: number): ProcessLock | undefined {
  if (readProcessLink(pid, 'ns/mnt') === readProcessLink(process.pid, 'ns/mnt')) return undefined;
  if (mayHang(readProcessFile(pid, 'mountinfo'))) return undefined;
  const opened: number[] = [];
  const open = (path: string, flags: number): number => {
    const descriptor = openSync(path, flags);
    opened.push(descriptor);
    return descriptor;
  };
  try {
    const byte = readStatus(pid).namespacePids.at(-1) ?? pid;
    let directory = open(`/proc/${pid}/root`, pathOnly | constants.O_DIRECTORY);
    for (const name of directories) {
      const flags = pathOnly | constants.O_NOFOLLOW | constants.O_DIRECTORY;
      directory = open(`/proc/self/fd/${directory}/${name}`, flags);
    }
    const found = open(`/proc/self/fd/${directory}/${lockFile}`, pathOnly | constants.O_NOFOLLOW);
    if (!fstatSync(found).isFile()) return undefined;
    return { file: openSync(`/proc/self/fd/${found}`, constants.O_RDWR), byte, isInside: true };
  } catch {
    // What cannot be opened, no kcare inside can use either.
    return undefined;
  } finally {
    opened.forEach((descriptor) => closeSync(descriptor));
  }
}

/** A file system that a program of the container serves answers when that likes. `text`: mountinfo (proc(5)). */
function mayHang(text: string): boolean {
  const onTheWay = new Set([
    '/',
    ...directories.map((_, index) => `/${directories.slice(0, index + 1).join('/')}`),
  ]);
  return text.split('\n').some((line) => {
    const [fields = '', system = ''] = line.split(' - ');
    return onTheWay.has(fields.split(' ')[4] ?? '') && /^(?:fuse|nfs|9p|cifs|smb)/.test(system);
  });
}
