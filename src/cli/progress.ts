// A line on the terminal that says how far a long run has come; nothing when standard error is not a terminal.
import type { Progress } from '../host/index.js';

const eraseLine = '\r\x1b[K';
const shortestIntervalMs = 50;

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
      process.stderr.write(`${eraseLine}${verb}: ${done} of ${total} processes, now ${pid}`);
    },
    clear: () => {
      if (shownAt !== -Infinity) process.stderr.write(eraseLine);
      shownAt = -Infinity;
    },
  };
}
