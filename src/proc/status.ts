// /proc/PID/status as a typed record.
import { readProcessFile } from './files.js';

export interface ProcessStatus {
  readonly name: string;
  /** One letter: R running, S sleeping, D uninterruptible, T stopped, t traced, Z zombie, X dead. */
  readonly state: string;
  /** The process that the thread belongs to; equal to the pid for a process. */
  readonly tgid: number;
  readonly parentPid: number;
  /** Effective user id. */
  readonly uid: number;
  /** 0 when nobody traces the process. */
  readonly tracerPid: number;
  readonly threads: number;
  /** 0 none, 1 strict (no system call but read, write, exit, sigreturn), 2 filter. */
  readonly seccomp: 0 | 1 | 2;
  /** The pid in every pid namespace, ours first. */
  readonly namespacePids: readonly number[];
  /** The first thread has a user-space shadow stack. */
  readonly shadowStack: boolean;
}

/** Throws TARGET_GONE, NOT_PERMITTED. */
export function readStatus(pid: number): ProcessStatus {
  return parseStatus(readProcessFile(pid, 'status'));
}

/** Parses the text of a status file (proc(5)); fields that an older kernel lacks count as 0 or absent. */
export function parseStatus(text: string): ProcessStatus {
  const fields = new Map<string, string>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    // The first line wins: the kernel escapes newlines in the name, so no process can write fields of its own.
    if (colon > 0 && !fields.has(line.slice(0, colon)))
      fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  const numbers = (key: string): number[] => (fields.get(key) ?? '').split(/\s+/).filter(Boolean).map(Number);
  const number = (key: string): number => numbers(key)[0] ?? 0;
  const seccomp = number('Seccomp');
  return {
    name: unescapeName(fields.get('Name') ?? ''),
    state: (fields.get('State') ?? '').charAt(0),
    tgid: number('Tgid'),
    parentPid: number('PPid'),
    uid: numbers('Uid')[1] ?? 0,
    tracerPid: number('TracerPid'),
    threads: number('Threads'),
    seccomp: seccomp === 1 || seccomp === 2 ? seccomp : 0,
    namespacePids: numbers('NSpid'),
    shadowStack: (fields.get('x86_Thread_features') ?? '').split(/\s+/).includes('shstk'),
  };
}

function unescapeName(name: string): string {
  return name.replace(/\\(n|\\)/g, (_, letter: string) => (letter === 'n' ? '\n' : '\\'));
}
