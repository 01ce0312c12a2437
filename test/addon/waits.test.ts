// More waits that a stop must not end: sockets, io_uring, restart blocks, and reads in a storm of signals (R5).
import { afterEach, describe, it } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { disturbWhileWaiting } from './disturb.js';
import { startFixture } from './target.js';

let target: Program | undefined;

afterEach(async () => {
  await target?.end();
  target = undefined;
});

describe('a remote call and a stop of all threads', () => {
  it.each([
    ['accept with a timeout', 'accept'],
    ['io_uring_enter', 'io_uring'],
    ['a long nanosleep, which ends in time', 'nanosleep'],
    ['read, with a signal each millisecond and SA_RESTART', 'restarted'],
    ['read, with a signal each millisecond and without SA_RESTART', 'interrupted'],
  ])('go unnoticed by a program in %s', async (_, kind) => {
    target = await startFixture('waits', kind);
    await disturbWhileWaiting(target);
  });
});
