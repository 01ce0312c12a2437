// The endurance run: patchers killed at random instants, and rounds of apply and unload, against busy targets.
import { fork } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { compileTarget, handmadePatch, returns } from '../fixtures/support/handmade.js';
import { writePatch } from '../src/patchfile/index.js';
import type { LaneOrder, LaneState } from './endure-lane.js';
import { levels, patchFile, valueOf } from './endure-levels.js';
import { leaveOutExtraCertificates } from './environment.js';

const progressEveryMs = process.stderr.isTTY ? 500 : 20_000;

function readNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  process.stderr.write(`endure: --${name} takes a whole number, not "${text}"\n`);
  process.exit(64);
}

function readOptions(): Record<'kills' | 'rounds' | 'seconds' | 'seed' | 'targets', number> {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '500' },
      rounds: { type: 'string', default: '1000' },
      /** At most; 0 = no limit. */
      seconds: { type: 'string', default: '0' },
      seed: { type: 'string', default: '1' },
      /** That many at once, and the kills and rounds shared among them. */
      targets: { type: 'string', default: `${os.availableParallelism()}` },
    },
  });
  return {
    kills: readNumber('kills', values.kills),
    rounds: readNumber('rounds', values.rounds),
    seconds: readNumber('seconds', values.seconds),
    seed: readNumber('seed', values.seed),
    targets: Math.max(1, readNumber('targets', values.targets)),
  };
}

/** Runs one lane to its end; rejects when it ends without saying what became of it. */
function runLane(order: LaneOrder, onState: (state: LaneState) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const lane = fork(path.join(import.meta.dirname, 'endure-lane.js'));
    let isOver = false;
    lane.on('message', (state: LaneState) => {
      isOver = state.isOver;
      onState(state);
    });
    lane.once('exit', (status, signal) => {
      if (isOver) resolve();
      else reject(new Error(`A lane ended with ${signal ?? `status ${status}`} in the middle of its work.`));
    });
    lane.send(order);
  });
}

function sum(states: readonly LaneState[], key: Exclude<keyof LaneState, 'isOver'>): number {
  return states.reduce((total, state) => total + state[key], 0);
}

/** All lanes together, per second. */
function rate(states: readonly LaneState[], key: 'kills' | 'rounds', time: 'killMs' | 'roundMs'): string {
  return states
    .reduce((total, state) => total + (state[time] > 0 ? (1000 * state[key]) / state[time] : 0), 0)
    .toFixed(1);
}

function showProgress(states: readonly LaneState[]): void {
  const text = `endure: ${sum(states, 'kills')} kills, ${sum(states, 'rounds')} rounds, ${sum(states, 'answers')} answers`;
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${text}` : `${text}\n`);
}

async function main(): Promise<void> {
  const { kills, rounds, seconds, seed, targets } = readOptions();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-endure-'));
  const states: LaneState[] = [];
  const timer = setInterval(() => showProgress(states), progressEveryMs);
  try {
    const { program, library } = compileTarget(directory);
    for (const level of levels) {
      const functions = { answer: returns(valueOf(level)), call_back: returns(8 + level) };
      fs.writeFileSync(patchFile(directory, level), writePatch(handmadePatch(library, level, functions)));
    }
    const share = (count: number, lane: number): number => Math.floor((count + lane) / targets);
    await Promise.all(
      Array.from({ length: targets }, (_, lane) => {
        const order: LaneOrder = {
          ...{ program, library, directory, seconds, seed: seed * targets + lane },
          ...{ kills: share(kills, lane), rounds: share(rounds, lane) },
        };
        return runLane(order, (state) => (states[lane] = state));
      }),
    );
  } finally {
    clearInterval(timer);
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
    fs.rmSync(directory, { recursive: true });
  }
  const [dead, stuck, wrong] = [sum(states, 'dead'), sum(states, 'stuck'), sum(states, 'wrong')];
  process.stdout.write(
    `${sum(states, 'answers')} answers, ${rate(states, 'kills', 'killMs')} kills and ` +
      `${rate(states, 'rounds', 'roundMs')} rounds a second\n` +
      `${sum(states, 'kills')} kills, ${sum(states, 'rounds')} rounds, ` +
      `${dead} dead, ${stuck} stuck, ${wrong} wrong\n`,
  );
  // Cut short by --seconds is no failure; cut short by damage is.
  process.exitCode = dead + stuck + wrong > 0 ? 1 : 0;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

leaveOutExtraCertificates();
await main();
