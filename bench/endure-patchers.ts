// Patchers of the endurance run: started ahead, so that nobody waits for their start-up, and killed at work.
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../src/base/package-root.js';
import type { Random } from './random.js';

/** Both reach into the third action or so: the end of one and the beginning of the next are met as well. */
const lastStep = 300;
const lastInstantMs = 40;
const startedAhead = 2;
/** Longer than the longest wait for a busy target. */
const patienceMs = 30_000;

/** A patcher that is dead. */
export interface Victim {
  /** It was killed between the beginning and the end of an action. */
  readonly wasAtWork: boolean;
  /** What became of the actions before, as "result message". */
  readonly outcomes: readonly string[];
}

class Patcher {
  readonly ready: Promise<void>;
  private readonly ended: Promise<void>;
  private said = '';

  constructor(
    private readonly child: ChildProcess,
    readonly diesByStep: boolean,
  ) {
    this.ended = new Promise((resolve) => child.once('close', () => resolve()));
    this.ready = new Promise((resolve) => {
      child.stdout?.on('data', (chunk: Buffer) => {
        this.said += chunk.toString();
        resolve();
      });
    });
    child.stdin?.on('error', () => undefined);
  }

  order(pid: number, seed: number): void {
    this.child.stdin?.write(`${pid} ${seed}`);
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }

  async end(): Promise<Victim> {
    await this.ended;
    const lines = this.said.trimEnd().split('\n');
    return {
      wasAtWork: this.child.signalCode === 'SIGKILL' && lines.at(-1)?.startsWith('begin') === true,
      outcomes: lines.filter((line) => line.startsWith('end ')).map((line) => line.slice('end '.length)),
    };
  }
}

/** One file with all it needs starts in half the time. */
function bundledPatcher(): string {
  const compiled = path.join(packageRoot(), 'dist');
  const file = path.join(compiled, 'bundle', 'endure-patcher', 'endure-patcher.js');
  const timeOf = (name: string): number => fs.statSync(name).mtimeMs;
  if (timeOf(file) > timeOf(path.join(compiled, '.tsbuildinfo'))) return file;
  throw new Error('The compiled modules are newer than their bundle: run "npm run build".');
}

export class Patchers {
  private readonly waiting: Patcher[] = [];
  private readonly file = bundledPatcher();

  constructor(
    private readonly directory: string,
    private readonly random: Random,
  ) {}

  /** Lets a patcher work on `pid` and kills it: half of them at a step of the engine, the others at some instant. */
  async sacrifice(pid: number): Promise<Victim> {
    while (this.waiting.length < startedAhead) this.waiting.push(this.start());
    const patcher = this.waiting.shift() ?? this.start();
    this.waiting.push(this.start());
    await patcher.ready;
    patcher.order(pid, this.random(1_000_000));
    if (!patcher.diesByStep) await this.killSoon(patcher);
    const hangs = setTimeout(() => patcher.kill(), patienceMs);
    const victim = await patcher.end();
    clearTimeout(hangs);
    return victim;
  }

  end(): void {
    for (const patcher of this.waiting.splice(0)) patcher.kill();
  }

  /** Timers count whole milliseconds; the rest is waited for on the spot. */
  private async killSoon(patcher: Patcher): Promise<void> {
    await sleep(this.random(lastInstantMs));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, this.random(1000) / 1000);
    patcher.kill();
  }

  private start(): Patcher {
    const diesByStep = this.random(2) === 0;
    const child = spawn(process.execPath, [this.file, this.directory], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: {
        ...process.env,
        ...(diesByStep && { KCARE_ENGINE_DIE_AT: `${1 + this.random(lastStep)}` }),
      },
    });
    return new Patcher(child, diesByStep);
  }
}
