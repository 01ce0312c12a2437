// One patcher that is going to be killed: waits, warm, for its order, then moves the target from level to level.
import { writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { nativeModule } from '../src/addon/native.js';
import { levels, mover } from './endure-levels.js';
import { generator } from './random.js';

const [directory = ''] = process.argv.slice(2);
const move = mover(directory);

/** Written before anything else happens: what is said last tells in the middle of what the patcher was killed. */
const say = (line: string): void => void writeSync(1, `${line}\n`);

async function work(pid: number, seed: number): Promise<never> {
  const random = generator(seed);
  for (;;) {
    const level = random(levels.length + 1);
    say(`begin ${level}`);
    const { result, error } = await move(pid, level);
    say(`end ${result} ${error?.message ?? ''}`);
    // Lets the end of the run be noticed.
    await setImmediate();
  }
}

nativeModule();
process.stdin.once('data', (order) => {
  const [pid = 0, seed = 0] = order.toString().split(' ').map(Number);
  void work(pid, seed);
});
process.stdin.once('end', () => process.exit(0));
say('ready');
