// One lane of the endurance run: a busy target of its own, kills and repairs, then rounds of apply and unload.
import { countChangedCodeBytes, readMappings } from '../fixtures/support/process-memory.js';
import { inspect } from '../src/engine/index.js';
import { levels, mover, original, valueOf } from './endure-levels.js';
import { Patchers } from './endure-patchers.js';
import { EnduringTarget, noDamage, type Damage } from './endure-target.js';
import { generator, type Random } from './random.js';

/** What a lane is told to do. */
export interface LaneOrder {
  readonly program: string;
  readonly library: string;
  /** Holds the patches. */
  readonly directory: string;
  readonly kills: number;
  readonly rounds: number;
  readonly seed: number;
  /** At most; 0 = no limit. */
  readonly seconds: number;
}

/** How far a lane is; the last one is sent at its end. */
export interface LaneState extends Damage {
  readonly kills: number;
  readonly rounds: number;
  readonly answers: number;
  /** Time spent with kills and with rounds, milliseconds. */
  readonly killMs: number;
  readonly roundMs: number;
  readonly isOver: boolean;
}

const mostFailures = 20;
const reportEveryMs = 500;

class Lane {
  private kills = 0;
  private rounds = 0;
  private killMs = 0;
  private roundMs = 0;
  private readonly random: Random;
  private readonly deadline: number;
  private readonly move: ReturnType<typeof mover>;

  constructor(
    private readonly order: LaneOrder,
    private readonly target: EnduringTarget,
    private readonly damage: Damage,
  ) {
    this.random = generator(order.seed);
    this.deadline = order.seconds === 0 ? Infinity : performance.now() + order.seconds * 1000;
    this.move = mover(order.directory);
  }

  state(isOver: boolean): LaneState {
    const { kills, rounds, killMs, roundMs } = this;
    return { kills, rounds, killMs, roundMs, answers: this.target.checks, ...this.damage, isOver };
  }

  async run(): Promise<void> {
    const begin = performance.now();
    await this.kill();
    const middle = performance.now();
    this.killMs = middle - begin;
    await this.round();
    this.roundMs = performance.now() - middle;
  }

  private get isOver(): boolean {
    const { dead, stuck, wrong } = this.damage;
    return dead + stuck > 0 || wrong > mostFailures || performance.now() > this.deadline;
  }

  private async kill(): Promise<void> {
    const patchers = new Patchers(this.order.directory, this.random);
    try {
      while (this.kills < this.order.kills && !this.isOver) {
        const { wasAtWork, outcomes } = await patchers.sacrifice(this.target.pid);
        for (const outcome of outcomes) {
          if (!/^(?:applied|upgraded|unchanged|unloaded) ?$/.test(outcome))
            this.target.complain(`a patcher said ${outcome}`);
        }
        if (wasAtWork) this.kills++;
        await this.repair();
      }
    } finally {
      patchers.end();
    }
  }

  /** The next run finds what the dead one left, and sets it right. */
  private async repair(): Promise<void> {
    await this.bringTo(this.random(levels.length + 1), 'after a kill');
    if (this.random(4) > 0) return;
    await this.bringTo(0, 'after a kill');
    this.checkOriginal();
  }

  private async round(): Promise<void> {
    await this.bringTo(0, 'before the rounds');
    const mappings = this.countCodeMappings();
    while (this.rounds < this.order.rounds && !this.isOver) {
      await this.bringTo(1 + this.random(levels.length), 'in a round');
      await this.bringTo(0, 'in a round');
      this.checkOriginal();
      this.rounds++;
    }
    if (this.target.isUsable && this.countCodeMappings() !== mappings)
      this.target.complain('rounds left mappings of code behind');
  }

  private countCodeMappings(): number {
    return readMappings(this.target.pid).filter((line) => / r.xp /.test(line)).length;
  }

  private async bringTo(level: number, when: string): Promise<void> {
    const report = await this.move(this.target.pid, level);
    if (report.error) this.target.complain(`${report.result}: ${report.error.message} ${when}`);
    else await this.target.check([level === 0 ? original : valueOf(level)], when);
    await this.target.checkThreads(when);
  }

  private checkOriginal(): void {
    if (!this.target.isUsable) return;
    if (inspect(this.target.pid).length > 0) this.target.complain('an image was left behind');
    if (countChangedCodeBytes(this.target.pid, this.order.library) > 0)
      this.target.complain('code is not the original one');
  }
}

async function main(order: LaneOrder): Promise<void> {
  const damage = noDamage();
  const target = await EnduringTarget.start(order.program, damage);
  const lane = new Lane(order, target, damage);
  const timer = setInterval(() => process.send?.(lane.state(false)), reportEveryMs);
  try {
    await lane.run();
  } finally {
    clearInterval(timer);
    await target.end();
  }
  process.send?.(lane.state(true), () => process.exit(0));
}

process.once('disconnect', () => process.exit(1));
process.once('message', (order: LaneOrder) => void main(order));
