// One kcarectl at a time: a lock that names its holder, and that the kernel gives back when the holder dies.
import { closeSync, constants, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { lockByte } from '../addon/host.js';
import { KcareError, namingFullDisk } from '../base/errors.js';
import { integer, record, text, type Shaped } from '../base/shapes.js';

const retryMs = 100;

const holderShape = record({ pid: integer(0), command: text(), since: text() });

export interface LockOptions {
  /** What the holder does, for the message to those who wait. */
  readonly command: string;
  /** How long to wait for another holder, milliseconds. */
  readonly waitMs: number;
}

/** Runs `action` while holding the lock at `path`; waits for another holder, then throws LOCK_HELD with its name. */
export async function withLock<Result>(
  path: string,
  options: LockOptions,
  action: () => Promise<Result>,
): Promise<Result> {
  const file = await namingFullDisk(path, () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    return Promise.resolve(openSync(path, flags, 0o644));
  });
  try {
    await acquire(file, path, options);
    const holder = { pid: process.pid, command: options.command, since: new Date().toISOString() };
    await namingFullDisk(path, () => {
      ftruncateSync(file);
      return Promise.resolve(writeSync(file, `${JSON.stringify(holder)}\n`, 0));
    });
    return await action();
  } finally {
    // Gives the lock back, too.
    closeSync(file);
  }
}

async function acquire(file: number, path: string, { waitMs }: LockOptions): Promise<void> {
  const deadline = performance.now() + waitMs;
  while (!lockByte(file, 0, true)) {
    if (performance.now() >= deadline) throw held(path, waitMs);
    await sleep(retryMs);
  }
}

function held(path: string, waitMs: number): KcareError {
  const holder = readHolder(path);
  const name = holder
    ? `process ${holder.pid} (${holder.command}, since ${holder.since})`
    : 'another process';
  return new KcareError('LOCK_HELD', `${name} holds the lock ${path}; waited ${waitMs / 1000} s.`, {
    path,
    ...holder,
  });
}

function readHolder(path: string): Shaped<typeof holderShape> | undefined {
  try {
    return holderShape(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return undefined;
  }
}
