// Which processes and threads there are.
import { readFileSync, readdirSync } from 'node:fs';
import { processFailure } from './failure.js';
import { readProcessFile } from './files.js';
import { KcareError } from '../base/errors.js';

/** PF_KTHREAD of include/linux/sched.h, shown in the flags of /proc/PID/stat. */
const kernelThreadFlag = 0x0020_0000;

/** Pids of all processes that have user memory: kernel threads, zombies and dead processes are left out. Ascending. */
export function listProcesses(): number[] {
  return numericEntries('/proc')
    .filter(hasUserMemory)
    .sort((left, right) => left - right);
}

/** Ids of the threads of a process, ascending. Throws TARGET_GONE. */
export function listThreads(pid: number): number[] {
  try {
    return numericEntries(`/proc/${pid}/task`).sort((left, right) => left - right);
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/** Clock ticks from boot to the start of the process: pid and start time together name a process for good. Throws TARGET_GONE. */
export function readStartTime(pid: number): bigint {
  return BigInt(statFields(pid)[19] ?? '0');
}

/** Clock ticks a second in what /proc shows, on every architecture of Linux that kcare knows (USER_HZ). */
const ticksPerSecond = 100;

/** When a process started, by the clock of this host; off by some 10 ms, and by what the clock was set since. Throws TARGET_GONE. */
export function readStartDate(pid: number): Date {
  const [uptime = '0'] = readFileSync('/proc/uptime', 'utf8').split(' ');
  const ageMs = Number(uptime) * 1000 - (Number(readStartTime(pid)) / ticksPerSecond) * 1000;
  return new Date(Date.now() - Math.max(0, ageMs));
}

function numericEntries(directory: string): number[] {
  return readdirSync(directory)
    .filter((name) => /^[1-9]\d*$/.test(name))
    .map(Number);
}

function hasUserMemory(pid: number): boolean {
  try {
    const fields = statFields(pid);
    const state = fields[0] ?? 'X';
    // Field 18: threads. A main thread that ended before the others is shown as a zombie.
    const isAlive = state !== 'X' && (state !== 'Z' || Number(fields[17]) > 1);
    return isAlive && (Number(fields[6]) & kernelThreadFlag) === 0;
  } catch (thrown) {
    if (thrown instanceof KcareError && thrown.code === 'TARGET_GONE') return false;
    throw thrown;
  }
}

/** The fields of /proc/PID/stat from the state on; the name before it may hold spaces and brackets. */
function statFields(pid: number): string[] {
  const text = readProcessFile(pid, 'stat');
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}
