// The target of the endurance run: a busy multi-threaded program that is asked without pause whether it is right.
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Program } from '../fixtures/support/program.js';
import { levels, original, valueOf } from './endure-levels.js';

/** An answer that takes longer counts as never. */
const patienceMs = 10_000;
const workers = 2;
/** Its threads take what time the patchers leave: otherwise these would mostly wait for a processor. */
const niceness = 10;

/** What went wrong with targets; all zero at the end of a good run. */
export interface Damage {
  dead: number;
  stuck: number;
  wrong: number;
}

export const noDamage = (): Damage => ({ dead: 0, stuck: 0, wrong: 0 });

export class EnduringTarget {
  checks = 0;
  private queue: Promise<unknown> = Promise.resolve();
  private isEnding = false;

  private constructor(
    private readonly program: Program,
    private readonly damage: Damage,
  ) {}

  static async start(file: string, damage: Damage): Promise<EnduringTarget> {
    const program = await Program.start('nice', ['-n', `${niceness}`, file, `${workers}`, 'churn']);
    await program.waitForLine(/^ready/);
    const target = new EnduringTarget(program, damage);
    void target.askWithoutPause();
    return target;
  }

  get pid(): number {
    return this.program.pid;
  }

  get isUsable(): boolean {
    return this.program.isAlive && this.damage.stuck === 0;
  }

  complain(what: string): void {
    this.damage.wrong++;
    process.stderr.write(`endure: wrong: ${what}\n`);
  }

  /** Asks for one answer; it must be one of `allowed`. */
  async check(allowed: readonly number[], when: string): Promise<void> {
    const line = await this.ask('answer', /^answer /);
    if (line === undefined) return;
    this.checks++;
    if (!allowed.some((value) => line === `answer ${value}`)) this.complain(`${line} ${when}`);
  }

  /** The answers that the busy threads got since the last time; and nobody may trace or stop the process. */
  async checkThreads(when: string): Promise<void> {
    const line = await this.ask('seen', /seen$/);
    const allowed = this.allowed().map(String);
    const seen = (line ?? 'seen').split(' ').slice(0, -1);
    if (seen.some((value) => !allowed.includes(value))) this.complain(`threads saw ${line} ${when}`);
    if (!this.program.isAlive) return;
    const status = fs.readFileSync(`/proc/${this.pid}/status`, 'utf8');
    if (!status.includes('TracerPid:\t0\n')) this.complain(`still traced ${when}`);
  }

  async end(): Promise<void> {
    this.isEnding = true;
    await this.queue;
    await this.program.end();
  }

  private allowed(): number[] {
    return [original, ...levels.map(valueOf)];
  }

  private async askWithoutPause(): Promise<void> {
    while (!this.isEnding && this.isUsable) {
      await this.check(this.allowed(), 'at any time');
      await sleep(1);
    }
  }

  /** One question at a time; nothing when the target is dead or stuck, which is counted. */
  private ask(question: string, pattern: RegExp): Promise<string | undefined> {
    const answer = this.queue.then(async () => {
      if (!this.isUsable) return undefined;
      try {
        this.program.writeLine(question);
        return await this.program.waitForLine(pattern, patienceMs);
      } catch {
        this.damage[this.program.isAlive ? 'stuck' : 'dead']++;
        return undefined;
      }
    });
    this.queue = answer;
    return answer;
  }
}
