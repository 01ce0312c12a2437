// Runs workers: a few at a time, each a process of its own that says what it has come to.
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { KcareError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';
import { LineCutter } from './lines.js';
import { errorFrom, longestAnswer } from './protocol.js';
import type { Job } from './worker.js';

const mostWorkers = 4;

export interface RunningJob {
  readonly result: Promise<unknown>;
  /** As SIGTERM ends kcarectl: the process at hand is finished, the others are reported as not reached. */
  readonly end: () => void;
}

export class Jobs {
  private readonly running = new Set<ChildProcess>();
  private readonly waiting: (() => void)[] = [];
  private isEnding = false;

  constructor(private readonly root: string) {}

  /** Starts the job when it is its turn. The result throws what the worker reports. */
  start(job: Omit<Partial<Job>, 'root'> & Pick<Job, 'job'>, onProgress: (line: unknown) => void): RunningJob {
    let child: ChildProcess | undefined;
    let isEnded = false;
    const run = async (): Promise<unknown> => {
      if (this.running.size >= mostWorkers) await new Promise<void>((resolve) => this.waiting.push(resolve));
      if (isEnded || this.isEnding) {
        this.next();
        throw new KcareError('RUN_ENDED', 'The request was ended before it began.');
      }
      child = spawn(process.execPath, [...workerProgram(), JSON.stringify({ root: this.root, ...job })], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      this.running.add(child);
      try {
        return await outcomeOf(child, onProgress);
      } finally {
        this.running.delete(child);
        this.next();
      }
    };
    return {
      result: run(),
      end: () => {
        isEnded = true;
        child?.kill('SIGTERM');
      },
    };
  }

  get count(): number {
    return this.running.size + this.waiting.length;
  }

  /** Lets no other job begin and asks the running ones to end. */
  endAll(): void {
    this.isEnding = true;
    for (const child of this.running) child.kill('SIGTERM');
  }

  private next(): void {
    this.waiting.shift()?.();
  }
}

function workerProgram(): string[] {
  const bundled = join(packageRoot(), 'dist', 'bundle', 'libcare-worker', 'libcare-worker.js');
  return [existsSync(bundled) ? bundled : join(packageRoot(), 'dist', 'src', 'daemon', 'worker.js')];
}

function outcomeOf(child: ChildProcess, onProgress: (line: unknown) => void): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const cutter = new LineCutter(longestAnswer);
    child.once('error', (error) =>
      reject(new KcareError('INTERNAL', `The worker did not start: ${error.message}.`)),
    );
    child.stdout?.on('data', (bytes: Buffer) => {
      for (const line of cutter.feed(bytes)) {
        const said = parseLine(line);
        if (said === undefined) continue;
        if ('result' in said) resolve(said.result);
        else if ('error' in said) reject(errorFrom(said.error));
        else if ('progress' in said) onProgress(said.progress);
      }
    });
    child.once('close', (status, signal) =>
      reject(
        signal === 'SIGTERM'
          ? new KcareError('RUN_ENDED', 'The request was ended before it came to a process.')
          : new KcareError('INTERNAL', `The worker ended without a result (${signal ?? status ?? '?'}).`),
      ),
    );
  });
}

function parseLine(line: string | null): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line ?? '');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
