// The endurance run: patchers killed at random instants, and rounds of apply and unload, against a busy target.
import { fork, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import {
  compileTarget,
  handmadePatch,
  released,
  returns,
  type Compiled,
} from '../fixtures/support/handmade.js';
import { countChangedCodeBytes, readMappings } from '../fixtures/support/process-memory.js';
import { apply, inspect, unload } from '../src/engine/index.js';
import { writePatch } from '../src/patchfile/index.js';
import { EnduringTarget, original, valueOf, type Damage } from './endure-target.js';
import type { PatcherAction } from './endure-patcher.js';

const levels = [1, 2];
/** A whole action has some 100 steps and takes some 20 ms; later instants fall behind its end. */
const lastStep = 110;
const lastInstantMs = 25;
const warmPatchers = 3;
const mostFailures = 20;
const options = { waitMs: 5000, dryRun: false };

const progress = (text: string): void => void process.stderr.write(`endure: ${text}\n`);

/** Uniform in 0..bound-1; a linear congruential generator (Knuth), the same numbers for the same seed. */
function generator(seed: number): (bound: number) => number {
  let state = BigInt(seed);
  return (bound) => {
    state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
    return Number((state >> 33n) % BigInt(bound));
  };
}

class Endurance {
  kills = 0;
  rounds = 0;
  private readonly warm: { patcher: ChildProcess; ready: Promise<void>; byStep: boolean }[] = [];

  constructor(
    private readonly compiled: Compiled,
    private readonly directory: string,
    private readonly target: EnduringTarget,
    private readonly damage: Damage,
    private readonly random: (bound: number) => number,
    private readonly deadline: number,
  ) {}

  private get isOver(): boolean {
    const { dead, stuck, wrong } = this.damage;
    return dead + stuck > 0 || wrong > mostFailures || performance.now() > this.deadline;
  }

  private patch(level: number): ReturnType<typeof released> {
    return released(patchOf(this.compiled, level));
  }

  async kill(count: number): Promise<void> {
    while (this.warm.length < warmPatchers) this.warmUp();
    while (this.kills < count && !this.isOver) {
      const before = this.kills;
      await this.killOne();
      await this.repair();
      if (this.kills % 100 === 0 && this.kills > before)
        progress(`${this.kills} kills, ${this.target.checks} answers`);
    }
    for (const { patcher } of this.warm.splice(0)) patcher.kill('SIGKILL');
  }

  /** Half of them die at a step of the engine, the others whenever the time has come. */
  private warmUp(): void {
    const byStep = this.random(2) === 0;
    const patcher = fork(path.join(import.meta.dirname, 'endure-patcher.js'), [], {
      env: { ...process.env, ...(byStep && { KCARE_ENGINE_DIE_AT: `${1 + this.random(lastStep)}` }) },
    });
    const ready = new Promise<void>((resolve) => patcher.once('message', () => resolve()));
    this.warm.push({ patcher, ready, byStep });
  }

  private async killOne(): Promise<void> {
    const next = this.warm.shift();
    this.warmUp();
    if (!next) return;
    const { patcher, ready, byStep } = next;
    await ready;
    const level = this.random(levels.length + 1);
    const action: PatcherAction = {
      pid: this.target.pid,
      ...(level > 0 && { file: path.join(this.directory, `${level}.kpatch`) }),
    };
    patcher.on('message', (report: unknown) => {
      const text = typeof report === 'string' ? report : JSON.stringify(report);
      if (!/^(?:applied|upgraded|unchanged|unloaded) $/.test(text))
        this.target.complain(`patcher said ${text}`);
    });
    const ended = new Promise<NodeJS.Signals | null>((resolve) =>
      patcher.once('exit', (_, signal) => resolve(signal)),
    );
    patcher.send(action);
    if (!byStep) {
      await sleep(this.random(lastInstantMs));
      patcher.kill('SIGKILL');
    }
    if ((await ended) === 'SIGKILL') this.kills++;
  }

  /** The next run finds what the dead one left, and sets it right. */
  private async repair(): Promise<void> {
    await this.bringTo(this.random(levels.length + 1), 'after a kill');
    if (this.random(4) > 0) return;
    await this.bringTo(0, 'after a kill');
    this.checkOriginal();
  }

  async round(count: number): Promise<void> {
    await this.bringTo(0, 'before the rounds');
    const mappings = readMappings(this.target.pid).filter((line) => / r.xp /.test(line)).length;
    while (this.rounds < count && !this.isOver) {
      await this.bringTo(1 + this.random(levels.length), 'in a round');
      await this.bringTo(0, 'in a round');
      this.checkOriginal();
      this.rounds++;
      if (this.rounds % 250 === 0) progress(`${this.rounds} rounds, ${this.target.checks} answers`);
    }
    if (!this.target.isUsable) return;
    if (readMappings(this.target.pid).filter((line) => / r.xp /.test(line)).length !== mappings)
      this.target.complain('rounds left mappings of code behind');
  }

  private async bringTo(level: number, when: string): Promise<void> {
    const { pid } = this.target;
    const report = level === 0 ? await unload(pid, options) : await apply(pid, [this.patch(level)], options);
    if (report.error) this.target.complain(`${report.result}: ${report.error.message} ${when}`);
    else await this.target.check([level === 0 ? original : valueOf(level)], when);
    await this.target.checkThreads(when);
  }

  private checkOriginal(): void {
    if (!this.target.isUsable) return;
    if (inspect(this.target.pid).length > 0) this.target.complain('an image was left behind');
    if (countChangedCodeBytes(this.target.pid, this.compiled.library) > 0)
      this.target.complain('code is not the original one');
  }
}

function patchOf({ library }: Compiled, level: number): ReturnType<typeof handmadePatch> {
  return handmadePatch(library, level, { answer: returns(valueOf(level)), call_back: returns(8 + level) });
}

function readNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  process.stderr.write(`endure: --${name} takes a whole number, not "${text}"\n`);
  process.exit(64);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '500' },
      rounds: { type: 'string', default: '1000' },
      /** At most; 0 = no limit. */
      seconds: { type: 'string', default: '0' },
      seed: { type: 'string', default: '1' },
    },
  });
  const kills = readNumber('kills', values.kills);
  const rounds = readNumber('rounds', values.rounds);
  const seconds = readNumber('seconds', values.seconds);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-endure-'));
  const compiled = compileTarget(directory);
  for (const level of levels)
    fs.writeFileSync(path.join(directory, `${level}.kpatch`), writePatch(patchOf(compiled, level)));
  const damage: Damage = { dead: 0, stuck: 0, wrong: 0 };
  const target = await EnduringTarget.start(compiled, damage, levels);
  const deadline = seconds === 0 ? Infinity : performance.now() + seconds * 1000;
  const random = generator(readNumber('seed', values.seed));
  const run = new Endurance(compiled, directory, target, damage, random, deadline);
  try {
    await run.kill(kills);
    await run.round(rounds);
  } finally {
    await target.end();
    fs.rmSync(directory, { recursive: true });
  }
  const { dead, stuck, wrong } = damage;
  process.stdout.write(
    `${run.kills} kills, ${run.rounds} rounds, ${dead} dead, ${stuck} stuck, ${wrong} wrong ` +
      `(${target.checks} answers)\n`,
  );
  // Cut short by --seconds is no failure; cut short by damage is.
  process.exitCode = dead + stuck + wrong > 0 ? 1 : 0;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

await main();
