// The fixture `functions` under load: diverts one of its functions to another and back.
import { setTimeout as sleep } from 'node:timers/promises';
import { readMemory } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { nativeEngine, type CommitOutcome, type CommitRequest } from '../../src/addon/index.js';
import { distance, remoteAddress, type RemoteAddress, type RemoteRange } from '../../src/base/address.js';
import { compileFixture } from './target.js';

export const states = { prepared: 0, committing: 1, active: 2 } as const;

interface Addresses {
  readonly answer: readonly [string, string];
  readonly other: readonly [string, string];
  readonly outer: readonly [string, string];
  readonly state: string;
  readonly helper: number;
  /** Words: set to make the process share its memory; the process that shares it. */
  readonly share: string;
  readonly sharer: string;
}

export function rangeOf([start, end]: readonly [string, string]): RemoteRange {
  return { start: remoteAddress(BigInt(start)), end: remoteAddress(BigInt(end)) };
}

/** `jmp` from one address to another. */
function jump(from: RemoteAddress, to: RemoteAddress): Buffer {
  const code = Buffer.alloc(5, 0xe9);
  code.writeInt32LE(distance(from, to) - code.length, 1);
  return code;
}

/** The fixture `functions` with what it printed about itself. */
export class FunctionsTarget {
  private constructor(
    readonly program: Program,
    readonly addresses: Addresses,
    private readonly original: Buffer,
  ) {}

  static async start(busy: number, idle: number, ...mode: string[]): Promise<FunctionsTarget> {
    const program = await Program.start(compileFixture('functions'), [`${busy}`, `${idle}`, ...mode]);
    const line = await program.waitForLine(/^ready/);
    const addresses = JSON.parse(line.slice('ready '.length)) as Addresses;
    return new FunctionsTarget(program, addresses, readMemory(program.pid, BigInt(addresses.answer[0]), 5));
  }

  get pid(): number {
    return this.program.pid;
  }

  /** Diverts `answer` to `other_answer`, or undoes that. */
  request(divert: boolean, changes: Partial<CommitRequest> = {}): CommitRequest {
    const answer = rangeOf(this.addresses.answer);
    const other = rangeOf(this.addresses.other);
    const diverted = jump(answer.start, other.start);
    const [expected, replacement] = divert ? [this.original, diverted] : [diverted, this.original];
    return {
      writes: [{ address: answer.start, expected, replacement }],
      guarded: [divert ? answer : other],
      states: [
        {
          address: remoteAddress(BigInt(this.addresses.state)),
          during: states.committing,
          after: divert ? states.active : states.prepared,
        },
      ],
      timeoutMs: 1000,
      examine: () => false,
      ...changes,
    };
  }

  commit(divert: boolean, changes: Partial<CommitRequest> = {}): CommitOutcome {
    return nativeEngine.commit(this.pid, this.request(divert, changes));
  }

  /** Tries until no thread is in the way. */
  async commitPatiently(divert: boolean): Promise<CommitOutcome> {
    for (let attempt = 0; attempt < 500; attempt++) {
      const outcome = this.commit(divert);
      if (outcome.outcome !== 'busy') return outcome;
      await sleep(1);
    }
    throw new Error('A thread was in the way at 500 attempts.');
  }

  code(): Buffer {
    return readMemory(this.pid, BigInt(this.addresses.answer[0]), 5);
  }

  isOriginal(): boolean {
    return this.code().equals(this.original);
  }

  state(): number {
    return readMemory(this.pid, BigInt(this.addresses.state), 4).readUInt32LE();
  }

  async finish(): Promise<{ ones: number; twos: number; wrong: number }> {
    this.program.writeLine('stop');
    return JSON.parse(await this.program.waitForLine(/ones/)) as {
      ones: number;
      twos: number;
      wrong: number;
    };
  }
}
