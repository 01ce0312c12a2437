// One patcher at a time for each process: the daemon, administrators and cron may all come at once.
import { closeSync, constants, existsSync, fstatSync, openSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { lockByte } from '../addon/host.js';
import { KcareError } from '../base/errors.js';
import { lockInContainer, type ProcessLock } from './container-lock.js';
import { openMemory, readStatus } from '../proc/index.js';
import { defaultIntentDirectory } from './intents.js';

/** Beside the journal's directory, which holds intents and nothing else. */
const suffix = '.lock';
const retryMs = 2;
/** Another patcher is done with a process within milliseconds, unless it waits for a busy thread. */
const shortestWaitMs = 500;
/** Its owner, or whoever is inside of its container, can hold up a process, but not those that wait behind it. */
const shortestForeignWaitMs = 50;

/**
 * Runs `action` while no other patcher works on `pid`: none that sees the process in the same /proc, whoever runs it and
 * whatever journal it has; none with the same journal; and none inside of the container of `pid`. The kernel ends the
 * locks with their holder. Throws TARGET_BUSY, TARGET_GONE, NOT_PERMITTED.
 */
export async function withProcessLock<Result>(
  pid: number,
  directory: string | undefined,
  waitMs: number,
  action: () => Promise<Result>,
): Promise<Result> {
  const locks = openProcessLocks(pid, resolve(directory ?? defaultIntentDirectory()));
  try {
    let deadline: number | undefined;
    for (const { file, byte, isInside } of locks) {
      while (!lockByte(file, byte, true)) {
        deadline ??= performance.now() + Math.max(waitMs, shortestWait(pid, isInside));
        if (performance.now() > deadline)
          throw new KcareError('TARGET_BUSY', `process ${pid}: another patcher works on it`, { pid });
        await sleep(retryMs);
      }
    }
    return await action();
  } finally {
    // Gives the locks back, too.
    for (const { file } of locks) closeSync(file);
  }
}

function shortestWait(pid: number, isInside: boolean): number {
  const isForeign = isInside || readStatus(pid).uid !== process.geteuid?.();
  return isForeign ? shortestForeignWaitMs : shortestWaitMs;
}

/** In the same order for all. Whoever is inside of a container takes locks of its own /proc and journal only. */
function openProcessLocks(pid: number, directory: string): ProcessLock[] {
  const locks: ProcessLock[] = [];
  try {
    // Only those can open it who may change the process, and all of them meet at it.
    locks.push({ file: openMemory(pid, 'r+'), byte: 0, isInside: false });
    const own = openLocks(directory);
    if (own !== undefined) locks.push({ file: own, byte: pid, isInside: false });
    const inside = lockInContainer(pid);
    if (inside === undefined) return locks;
    // Some mounts of its own, and /run is that of the host: one lock cannot be taken twice.
    if (own !== undefined && isSameFile(inside.file, own)) closeSync(inside.file);
    else locks.push(inside);
    return locks;
  } catch (error) {
    for (const { file } of locks) closeSync(file);
    throw error;
  }
}

function isSameFile(one: number, other: number): boolean {
  const [a, b] = [fstatSync(one), fstatSync(other)];
  return a.dev === b.dev && a.ino === b.ino;
}

/** No process has this number. */
const gate = 0;
const longestGateMs = 60_000;

/**
 * Passes the gate when it is open, and gives the function that leaves it; undefined when it is closed. Whoever patches
 * new processes passes it for each few of them.
 */
export function tryGate(directory: string): (() => void) | undefined {
  const file = openLocks(resolve(directory));
  if (file === undefined) return () => undefined;
  if (lockByte(file, gate, true)) return () => closeSync(file);
  closeSync(file);
  return undefined;
}

/** Runs `action` while nobody passes the gate: no new process is patched meanwhile. Throws LOCK_HELD. */
export async function withGateClosed<Result>(
  directory: string,
  action: () => Promise<Result>,
): Promise<Result> {
  const deadline = performance.now() + longestGateMs;
  for (;;) {
    const open = tryGate(directory);
    if (open) {
      try {
        return await action();
      } finally {
        open();
      }
    }
    if (performance.now() > deadline) {
      const text = `Another kcarectl changes what is patched, or libcare-server is at work on a new process; waited ${longestGateMs / 1000} s.`;
      throw new KcareError('LOCK_HELD', text);
    }
    await sleep(retryMs);
  }
}

/** R10: the directory was checked when the journal was opened. What cannot be opened, the journal reports. */
function openLocks(directory: string): number | undefined {
  if (!existsSync(directory)) return undefined;
  try {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    return openSync(`${directory}${suffix}`, flags, 0o600);
  } catch {
    return undefined;
  }
}
