// Reads the small files and links of /proc/PID.
import { readFileSync, readlinkSync } from 'node:fs';
import { processFailure } from './failure.js';

/** Text of /proc/`pid`/`name`; bytes that are not UTF-8 become U+FFFD. Throws TARGET_GONE, NOT_PERMITTED. */
export function readProcessFile(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/** Target of the symbolic link /proc/`pid`/`name`, e.g. `exe`. Throws TARGET_GONE, NOT_PERMITTED. */
export function readProcessLink(pid: number, name: string): string {
  try {
    return readlinkSync(`/proc/${pid}/${name}`);
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/** The name that ps shows: at most 15 bytes, chosen by the process itself. Throws TARGET_GONE. */
export function readCommand(pid: number): string {
  return readProcessFile(pid, 'comm').replace(/\n$/, '');
}
