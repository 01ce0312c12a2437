// Reads the maps of thousands of processes: only what is executed, straight from the bytes, without a line becoming text.
import { closeSync, openSync, readSync } from 'node:fs';

/** A file of which the process executes code. */
export interface ExecutedFile {
  /** Everything that the kernel says of the file, "major:minor inode path", as Latin-1: the same for all its mappings. */
  readonly key: string;
  /** "start-end" as the kernel writes it: the name of a mapping of this file below /proc/PID/map_files. */
  readonly range: string;
}

export interface ScannedMaps {
  readonly files: readonly ExecutedFile[];
  /** There is anonymous executable memory, as an image of kcare is. */
  readonly mayHoldImages: boolean;
  /** False: nothing is mapped, as in kernel threads and when a thread has ended. */
  readonly hasMemory: boolean;
}

const [newline, space, letterX, slash] = [10, 32, 120, 47];
/** Addresses and offsets have at least eight digits: "00400000-00401000". */
const shortestRange = 17;
/** Behind the first blank of a line: "r-xp offset device inode path". */
const executeOffset = 3;
const shortestOffsetEnd = 14;
const anonymous = Buffer.from('00:00 0 ');

let buffer = Buffer.allocUnsafeSlow(256 * 1024);
/** More than 65,530 mappings, the default limit, with the longest paths. */
const longestMaps = 512 * 1024 * 1024;

/** Scans a maps file of /proc. Throws the system's errors, and RangeError when it is larger than can be. */
export function scanMapsFile(path: string): ScannedMaps {
  return scanMaps(buffer, readInto(path));
}

/** The bytes of a maps file are left in {@link buffer}; returns their number. */
function readInto(path: string): number {
  const file = openSync(path, 'r');
  try {
    let length = 0;
    for (;;) {
      const count = readSync(file, buffer, length, buffer.length - length, null);
      if (count === 0) return length;
      length += count;
      // The kernel gives whole lines, at most a page at once.
      if (buffer.length - length < 8192) grow();
    }
  } finally {
    closeSync(file);
  }
}

function grow(): void {
  if (buffer.length >= longestMaps) throw new RangeError('The list of mappings is too long.');
  const larger = Buffer.allocUnsafeSlow(buffer.length * 2);
  buffer.copy(larger);
  buffer = larger;
}

/** Scans the first `length` bytes of `bytes`, the text of a maps file (proc(5)). */
export function scanMaps(bytes: Buffer, length: number): ScannedMaps {
  const files: ExecutedFile[] = [];
  let mayHoldImages = false;
  for (let line = 0; line < length;) {
    const blank = seek(bytes, space, line + shortestRange, length);
    const device = seek(bytes, space, blank + shortestOffsetEnd, length) + 1;
    const end = seek(bytes, newline, device, length);
    if (bytes[blank + executeOffset] === letterX && device < end) {
      if (isAnonymous(bytes, device)) {
        mayHoldImages ||= device + anonymous.length >= end;
      } else {
        const key = bytes.toString('latin1', device, end);
        // The code of an object is one mapping as a rule; what is split is split side by side.
        if (files.at(-1)?.key !== key) files.push({ key, range: bytes.toString('latin1', line, blank) });
      }
    }
    line = end + 1;
  }
  return { files, mayHoldImages, hasMemory: length > 0 };
}

/** `length` when there is none. A plain loop: lines are too short for a call into native code to pay. */
function seek(bytes: Buffer, wanted: number | undefined, start: number, length: number): number {
  for (let at = start; at < length; at++) {
    if (bytes[at] === wanted) return at;
  }
  return length;
}

function isAnonymous(bytes: Buffer, at: number): boolean {
  for (let index = 0; index < anonymous.length; index++) {
    if (bytes[at + index] !== anonymous[index]) return false;
  }
  return true;
}

/** What a key says, paths as Latin-1 and as the kernel writes them. */
export interface FileName {
  /** As stat(2) gives it: major and minor number. */
  readonly major: number;
  readonly minor: number;
  readonly inode: bigint;
  /** With the mark of deleted files, if any. */
  readonly path: string;
}

/** Undefined for what is no file: devices, System V memory, and the kernel's own. */
export function parseFileKey(key: string): FileName | undefined {
  const start = key.indexOf(String.fromCharCode(slash));
  const [device = '', inode = ''] = key.split(' ', 2);
  const [major = '', minor = ''] = device.split(':');
  if (start < 0 || !/^[0-9a-f]+:[0-9a-f]+$/.test(device) || !/^\d+$/.test(inode)) return undefined;
  // Between inode and path there are blanks only: "anon_inode:/name" and "socket:[1]" are no paths.
  if (key.slice(device.length + inode.length + 2, start).trim() !== '') return undefined;
  const path = key.slice(start);
  if (noFiles.some((name) => path.startsWith(name))) return undefined;
  return { major: parseInt(major, 16), minor: parseInt(minor, 16), inode: BigInt(inode), path };
}

const noFiles = ['/dev/zero', '/SYSV', '/anon_hugepage', '/[', '/dev/dri/', '/dev/nvidia'];

export function isMemoryFile(path: string): boolean {
  return path.startsWith('/memfd:');
}
