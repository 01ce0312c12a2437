// Reads the small files and links of /proc/PID.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { processFailure, processGone } from './failure.js';

/** Text of /proc/`pid`/`name`; bytes that are not UTF-8 become U+FFFD. Throws TARGET_GONE, NOT_PERMITTED. */
export function readProcessFile(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/**
 * Where /proc shows the memory of a process: `pid`, or "PID/task/TID" of a living thread when the main thread has
 * ended before the others. Throws TARGET_GONE when no thread has memory, NOT_PERMITTED.
 */
export function memoryDirectory(pid: number): string {
  if (hasMemory(`${pid}`)) return `${pid}`;
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
  const thread = threads.map((name) => `${pid}/task/${name}`).find(hasMemory);
  if (thread === undefined) throw processGone(pid);
  return thread;
}

function hasMemory(directory: string): boolean {
  try {
    return !readFileSync(`/proc/${directory}/statm`, 'utf8').startsWith('0');
  } catch {
    return false;
  }
}

/** Target of the symbolic link /proc/`pid`/`name`, e.g. `exe`. Throws TARGET_GONE, NOT_PERMITTED. */
export function readProcessLink(pid: number, name: string): string {
  try {
    return readlinkSync(`/proc/${memoryDirectory(pid)}/${name}`);
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/** The name that ps shows: at most 15 bytes, chosen by the process itself. Throws TARGET_GONE. */
export function readCommand(pid: number): string {
  return readProcessFile(pid, 'comm').replace(/\n$/, '');
}
