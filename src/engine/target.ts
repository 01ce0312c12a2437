// One process as the engine sees it before it changes anything, and the door through which images are written.
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { advance, hex, type RemoteAddress } from '../base/address.js';
import { asKcareError, KcareError } from '../base/errors.js';
import type { ImageHeader } from '../link/index.js';
import {
  mappedObjects,
  memoryDirectory,
  ProcessMemory,
  readMaps,
  readStatus,
  type MappedObject,
  type Mapping,
} from '../proc/index.js';
import type { MemoryReader } from './frames.js';
import { findSignalReturn } from './signal-return.js';
import { findImages } from './images.js';

export interface Target {
  readonly pid: number;
  readonly maps: readonly Mapping[];
  readonly objects: readonly MappedObject[];
  /** Images of kcare, in whatever state. */
  readonly images: readonly ImageHeader[];
  readonly read: MemoryReader;
  /** Writes to private memory whatever its protection, without a stop. Throws TARGET_MEMORY, TARGET_GONE. */
  readonly write: (address: RemoteAddress, bytes: Uint8Array) => void;
  /** Address of the signal return trampoline. Throws TARGET_UNSUPPORTED. */
  readonly signalReturn: () => RemoteAddress;
}

/**
 * Runs `action` with a fresh view of the process. Both descriptors stay with the program that runs now: should it
 * execute another one, reads and writes fail instead of reaching that. Throws TARGET_GONE, NOT_PERMITTED,
 * HEADER_MALFORMED.
 */
export async function withTarget<Result>(
  pid: number,
  action: (target: Target) => Result | Promise<Result>,
): Promise<Result> {
  const memory = ProcessMemory.open(pid);
  let writable: number | undefined;
  try {
    const maps = readMaps(pid);
    const read: MemoryReader = (address, length) => memory.read(address, length);
    const objects = mappedObjects(pid, memory, maps);
    const images = findImages(maps, read);
    writable = openForWriting(pid);
    const descriptor = writable;
    const write = (address: RemoteAddress, bytes: Uint8Array): void =>
      writeAll(pid, descriptor, address, bytes);
    return await action({
      pid,
      maps,
      objects,
      images,
      read,
      write,
      signalReturn: () => findSignalReturn(objects, read),
    });
  } finally {
    memory.close();
    if (writable !== undefined) closeSync(writable);
  }
}

function openForWriting(pid: number): number {
  try {
    return openSync(`/proc/${memoryDirectory(pid)}/mem`, 'r+');
  } catch (thrown) {
    const error = asKcareError(thrown);
    if (error.code !== 'FILE_MISSING') throw error;
    throw new KcareError('TARGET_GONE', `process ${pid} ended`, { pid });
  }
}

function writeAll(pid: number, descriptor: number, address: RemoteAddress, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    let count: number;
    try {
      // The declared type of `position` lacks bigint, which Node accepts; user addresses are exact as numbers.
      count = writeSync(descriptor, bytes, done, bytes.length - done, Number(advance(address, done)));
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      throw new KcareError('TARGET_MEMORY', `process ${pid}: cannot write at ${hex(address)} (${reason})`, {
        pid,
      });
    }
    if (count === 0) throw new KcareError('TARGET_GONE', `process ${pid} ended`, { pid });
    done += count;
  }
}

/** Throws when this process must be left alone, with the reason. */
export function checkTarget(pid: number): void {
  const status = readStatus(pid);
  // The main thread may end before the others: state Z, but the process lives.
  memoryDirectory(pid);
  if (status.tracerPid !== 0) {
    throw new KcareError('TARGET_TRACED', `process ${pid} is traced by process ${status.tracerPid}`, {
      tracer: status.tracerPid,
    });
  }
  if (status.shadowStack) {
    throw new KcareError('TARGET_UNSUPPORTED', `process ${pid} has a user-space shadow stack`);
  }
}

/** By the header of its program; false where that cannot be read. */
export function is32Bit(pid: number): boolean {
  const classOffset = 4;
  const class32 = 1;
  const byte = new Uint8Array(1);
  try {
    const file = openSync(`/proc/${pid}/exe`, 'r');
    try {
      return readSync(file, byte, 0, 1, classOffset) === 1 && byte[0] === class32;
    } finally {
      closeSync(file);
    }
  } catch {
    return false;
  }
}
