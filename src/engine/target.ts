// One process as the engine sees it before it changes anything, and the door through which images are written.
import { closeSync, openSync, readSync } from 'node:fs';
import type { RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import type { ImageHeader } from '../link/index.js';
import {
  mappedObjects,
  ProcessMemory,
  readMaps,
  readStatus,
  type MappedObject,
  type Mapping,
} from '../proc/index.js';
import type { MemoryReader } from './frames.js';
import { findSignalReturn } from './signal-return.js';
import { findImages } from './images.js';
import type { IntentJournal } from './intents.js';

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
  /** Where mappings are noted that are begun. */
  readonly journal: IntentJournal;
}

/**
 * Runs `action` with a fresh view of the process. The descriptor stays with the program that runs now: should it
 * execute another one, reads and writes fail instead of reaching that. Throws TARGET_GONE, NOT_PERMITTED,
 * HEADER_MALFORMED.
 */
export async function withTarget<Result>(
  pid: number,
  journal: IntentJournal,
  action: (target: Target) => Result | Promise<Result>,
): Promise<Result> {
  const memory = ProcessMemory.open(pid, 'r+');
  try {
    const maps = readMaps(pid);
    const read: MemoryReader = (address, length) => memory.read(address, length);
    const objects = mappedObjects(pid, memory, maps);
    const images = findImages(maps, read);
    return await action({
      pid,
      maps,
      objects,
      images,
      read,
      write: (address, bytes) => memory.write(address, bytes),
      signalReturn: () => findSignalReturn(objects, read),
      journal,
    });
  } finally {
    memory.close();
  }
}

/** Throws when this process must be left alone, with the reason. */
export function checkTarget(pid: number): void {
  const status = readStatus(pid);
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
