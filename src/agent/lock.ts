// One kcarectl at a time: a lock that names its holder.
import { mkdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import lockfile from 'proper-lockfile';
import { KcareError, namingFullDisk } from '../base/errors.js';
import { integer, record, text, type Shaped } from '../base/shapes.js';
import { systemCode } from '../proc/index.js';

/** A holder that was killed is passed over after this time, milliseconds; a living one refreshes the lock meanwhile. */
const staleMs = 10_000;
const refreshMs = 2_000;
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
  const release = await namingFullDisk(path, async () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return await acquire(path, options);
  });
  try {
    const holder = { pid: process.pid, command: options.command, since: new Date().toISOString() };
    await namingFullDisk(path, async () => {
      await writeFile(path, `${JSON.stringify(holder)}\n`, { mode: 0o644 });
    });
    return await action();
  } finally {
    await release().catch(() => undefined);
  }
}

async function acquire(path: string, options: LockOptions): Promise<() => Promise<void>> {
  const deadline = performance.now() + options.waitMs;
  for (;;) {
    try {
      // A lost lock (the clock jumped, the directory was removed) must not stop a run in the middle of its work.
      return await lockfile.lock(path, {
        realpath: false,
        stale: staleMs,
        update: refreshMs,
        onCompromised: () => undefined,
      });
    } catch (thrown) {
      if (systemCode(thrown) !== 'ELOCKED') throw thrown;
      if (performance.now() >= deadline) throw held(path, options.waitMs);
      await sleep(retryMs);
    }
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
