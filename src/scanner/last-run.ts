// What the log says about the last update or unload: when it ended, what became of the processes, how long they stood.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { integer, optional, record, text, utcTime, type Shaped } from '../base/shapes.js';

const longestPart = 8 * 1024 * 1024;

const lineShape = record({
  time: utcTime,
  pid: integer(0),
  msg: text(),
  command: optional(text(64), ''),
  outcome: optional(text(64), ''),
  exitCode: optional(integer(0, 255), 0),
  dryRun: (value) => value === true,
  pauseNs: optional(record({ running: integer(0), longest: integer(0) }), { running: 0, longest: 0 }),
});
type LogLine = Shaped<typeof lineShape>;

export interface LastRun {
  /** ISO 8601, when it ended. */
  readonly time: string;
  /** "--lib-update" or the like. */
  readonly command: string;
  readonly exitCode: number;
  /** Number of processes by what became of them. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** The longest times that threads of one process stood still, nanoseconds: running ones, and any. */
  readonly pauseNs: { readonly running: number; readonly longest: number };
}

/** Undefined when the end of the log at `path` tells of no run that changed something. */
export function lastRun(path: string): LastRun | undefined {
  const lines = lastLines(path).flatMap((line) => parse(line) ?? []);
  const end = lines.findLastIndex(({ msg, dryRun }) => msg === 'finished' && !dryRun);
  const finished = lines[end];
  if (!finished) return undefined;
  const own = lines.slice(0, end).filter(({ pid }) => pid === finished.pid);
  const before = own.findLastIndex(({ msg }) => msg === 'finished');
  const processes = own.slice(before + 1).filter(({ msg }) => msg === 'process');
  const outcomes: Record<string, number> = {};
  for (const { outcome } of processes) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  const { time, command, exitCode } = finished;
  const longest = (kind: 'running' | 'longest'): number =>
    Math.max(0, ...processes.map(({ pauseNs }) => pauseNs[kind]));
  return {
    time,
    command,
    exitCode,
    outcomes,
    pauseNs: { running: longest('running'), longest: longest('longest') },
  };
}

function parse(line: string): LogLine | undefined {
  try {
    return lineShape(JSON.parse(line));
  } catch {
    // A line that was cut, or of another version.
    return undefined;
  }
}

/** The lines at the end of a log, at most `most` bytes; none when it cannot be read. */
export function lastLines(path: string, most = longestPart): string[] {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const { size } = fstatSync(file);
    const bytes = Buffer.alloc(Math.min(size, most));
    const length = readSync(file, bytes, 0, bytes.length, size - bytes.length);
    const lines = bytes.toString('utf8', 0, length).split('\n');
    return (size > bytes.length ? lines.slice(1) : lines).filter((line) => line !== '');
  } catch {
    return [];
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
