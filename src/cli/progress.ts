// A line on the terminal that says how far a long run has come; nothing when standard error is not a terminal.
import type { Progress } from '../host/index.js';

const eraseLine = '\r\x1b[K';
const shortestIntervalMs = 50;

/** A line that wraps could not be erased. */
function fitted(line: string): string {
  return line.slice(0, Math.max(process.stderr.columns - 1, 0));
}

export interface ProgressLine {
  readonly show: Progress;
  readonly clear: () => void;
}

/** `verb` as in "Patching". */
export function progressLine(verb: string): ProgressLine {
  if (!process.stderr.isTTY) return { show: () => undefined, clear: () => undefined };
  let shownAt = -Infinity;
  return {
    show: (done, total, pid) => {
      const now = performance.now();
      if (now - shownAt < shortestIntervalMs) return;
      shownAt = now;
      process.stderr.write(eraseLine + fitted(`${verb}: ${done} of ${total} processes, now ${pid}`));
    },
    clear: () => {
      if (shownAt !== -Infinity) process.stderr.write(eraseLine);
      shownAt = -Infinity;
    },
  };
}

const barWidth = 24;

export interface ProgressBar {
  /** How many of all are done, and what the others are at; a line for each new stage where there is no terminal. */
  readonly show: (done: number, total: number, stages: ReadonlyMap<string, string>, changed?: string) => void;
  readonly clear: () => void;
}

/** One bar over work that runs side by side; `unit` as in "versions". */
export function progressBar(unit: string): ProgressBar {
  if (!process.stderr.isTTY) {
    return {
      show: (_done, _total, stages, changed) => {
        const stage = changed === undefined ? undefined : stages.get(changed);
        if (changed !== undefined && stage !== undefined) process.stderr.write(`${changed}: ${stage}\n`);
      },
      clear: () => undefined,
    };
  }
  return {
    show: (done, total, stages) => {
      const filled = Math.round((done / Math.max(total, 1)) * barWidth);
      const bar = `[${'#'.repeat(filled)}${'-'.repeat(barWidth - filled)}]`;
      const now = [...stages].map(([name, stage]) => `${name}: ${stage}`).join('; ');
      const line = `${bar} ${done} of ${total} ${unit}  ${now}`;
      process.stderr.write(eraseLine + fitted(line));
    },
    clear: () => void process.stderr.write(eraseLine),
  };
}
