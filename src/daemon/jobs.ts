// Runs workers: a few at a time, each a process of its own that says what it has come to.
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { KcareError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';
import { LineCutter } from './lines.js';
import { errorFrom, longestAnswer } from './protocol.js';
import type { Job } from './worker.js';

/** What the server asks for itself does not wait behind requests, which may all wait for the agent's lock; nor may its own two. */
const places = { requests: 4, standing: 1, fetch: 1 };

export interface RunningJob {
  readonly result: Promise<unknown>;
  /** As SIGTERM ends kcarectl: the process at hand is finished, the others are reported as not reached. */
  readonly end: () => void;
}

/** So many at a time, the others in their order. */
class Queue {
  private readonly waiting: (() => void)[] = [];
  private taken = 0;

  constructor(private readonly places: number) {}

  get count(): number {
    return this.taken + this.waiting.length;
  }

  async enter(): Promise<void> {
    if (this.taken >= this.places) await new Promise<void>((resolve) => this.waiting.push(resolve));
    else this.taken++;
  }

  /** Whoever is first takes over the place; the inverse of {@link enter}. */
  leave(): void {
    const first = this.waiting.shift();
    if (first) first();
    else this.taken--;
  }
}

export class Jobs {
  private readonly running = new Set<ChildProcess>();
  private readonly queues = {
    requests: new Queue(places.requests),
    standing: new Queue(places.standing),
    fetch: new Queue(places.fetch),
  };
  private isEnding = false;

  constructor(private readonly root: string) {}

  /** Starts the job when it is its turn. The result throws what the worker reports. */
  start(job: Omit<Partial<Job>, 'root'> & Pick<Job, 'job'>, onProgress: (line: unknown) => void): RunningJob {
    let child: ChildProcess | undefined;
    let isEnded = false;
    const queue = job.job === 'standing' || job.job === 'fetch' ? this.queues[job.job] : this.queues.requests;
    const run = async (): Promise<unknown> => {
      await queue.enter();
      try {
        if (isEnded || this.isEnding)
          throw new KcareError('RUN_ENDED', 'The request was ended before it began.');
        child = spawn(process.execPath, [...workerProgram(), JSON.stringify({ root: this.root, ...job })], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        this.running.add(child);
        return await outcomeOf(child, onProgress);
      } finally {
        if (child) this.running.delete(child);
        queue.leave();
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
    return Object.values(this.queues).reduce((sum, queue) => sum + queue.count, 0);
  }

  /** Lets no other job begin and asks the running ones to end. */
  endAll(): void {
    this.isEnding = true;
    for (const child of this.running) child.kill('SIGTERM');
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
