// /proc/PID/auxv: what the kernel told the program at its start.
import { readFileSync } from 'node:fs';
import { processFailure } from './failure.js';
import { memoryDirectory } from './files.js';

/** The vector as the kernel wrote it. Throws TARGET_GONE, NOT_PERMITTED. */
export function readAuxiliaryBytes(pid: number): Buffer {
  try {
    return readFileSync(`/proc/${memoryDirectory(pid)}/auxv`);
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/** Values by type (AT_*, getauxval(3)). Throws TARGET_GONE, NOT_PERMITTED. */
export function readAuxiliaryVector(pid: number): Map<number, bigint> {
  const bytes = readAuxiliaryBytes(pid);
  const values = new Map<number, bigint>();
  for (let at = 0; at + 16 <= bytes.length; at += 16) {
    const type = bytes.readBigUInt64LE(at);
    if (type === 0n) break;
    values.set(Number(type), bytes.readBigUInt64LE(at + 8));
  }
  return values;
}
