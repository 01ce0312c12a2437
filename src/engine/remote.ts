// Memory of a target: mapping, filling and unmapping an image.
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { nativeEngine } from '../addon/index.js';
import type { RemoteCall } from '../addon/types.js';
import { advance, hex, remoteAddress, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import {
  chooseGaps,
  headerBytes,
  headerLayout,
  type Image,
  type ImageHeader,
  type Layout,
  type OccupiedRange,
} from '../link/index.js';
import { readHeapStart, readMaps, type MappedObject } from '../proc/index.js';
import { isPointedInto } from './contexts.js';
import type { Pauses } from './pauses.js';
import type { Target } from './target.js';

/** What making a call in a process takes. */
type Caller = Pick<Target, 'pid' | 'signalReturn'>;

const systemCalls = { mmap: 9, mprotect: 10, munmap: 11 } as const;
const protection = { read: 1n, write: 2n, execute: 4n } as const;
const mapFlags = { private: 2n, anonymous: 0x20n, fixedNoReplace: 0x100000n } as const;
const stopTimeoutMs = 1000;
const mostGapsTried = 8;

/**
 * Maps an image near `object` and fills it. `build` makes the image for an address; its header is written while the
 * thread that maps it still stands, the rest without a stop. The inverse is {@link unmapImage}.
 */
export function mapImage(
  target: Target,
  object: MappedObject,
  layout: Layout,
  build: (address: RemoteAddress) => Image,
  pauses: Pauses,
): ImageHeader {
  for (const image of imagesInGaps(target, object, layout, build)) {
    const { address } = image.header;
    const [mapped = -1n, protectionResult = 0n] = mapRange(target, image, pauses);
    if (mapped === BigInt(-constants.errno.EEXIST)) continue;
    if (mapped < 0n) throw cannotMap(target.pid, mapped);
    try {
      if (protectionResult !== 0n) throw cannotMap(target.pid, protectionResult);
      if (mapped === address) {
        fillImage(target, image);
        return image.header;
      }
    } catch (error) {
      unmapRange(target, remoteAddress(mapped), layout.size, pauses);
      throw error;
    }
    // A kernel before 4.17 takes the address as a hint and may choose another: try the next gap.
    unmapRange(target, remoteAddress(mapped), layout.size, pauses);
  }
  throw new KcareError('NO_GAP', `process ${target.pid} has no free range near ${object.name}`);
}

/** Images for the gaps, in the order in which they are tried: gaps that the process knows from earlier come last. */
function* imagesInGaps(
  target: Target,
  object: MappedObject,
  layout: Layout,
  build: (address: RemoteAddress) => Image,
): Generator<Image> {
  const known: Image[] = [];
  for (const start of chooseGaps(occupied(target.pid), object, layout.size).slice(0, mostGapsTried)) {
    const image = build(start);
    const content = advance(start, headerBytes(image.constant));
    const isKnown =
      image.header.escapes && isPointedInto(target, { start: content, end: advance(start, layout.size) });
    if (isKnown) known.push(image);
    else yield image;
  }
  yield* known;
}

/** R2: until the header is written, the journal says what the mapping is. */
function mapRange(target: Target, image: Image, pauses: Pauses): readonly bigint[] {
  const { address, size } = image.header;
  const header = image.constant.subarray(0, headerBytes(image.constant));
  return target.journal.during({ pid: target.pid, start: address, size, header }, (intent) =>
    call(target, mappingCalls(image, header, intent), pauses),
  );
}

/** R9: data becomes read-and-write and loses execute in one step; nothing is ever both. */
function mappingCalls(image: Image, mark: Uint8Array, intent: number): RemoteCall[] {
  const { address, size, executableSize } = image.header;
  const flags = mapFlags.private | mapFlags.anonymous | mapFlags.fixedNoReplace;
  const map = {
    number: systemCalls.mmap,
    arguments: [
      address,
      BigInt(size),
      protection.read | protection.execute,
      flags,
      BigInt.asUintN(64, -1n),
      0n,
    ],
    mark,
    intent,
  };
  if (size === executableSize) return [map];
  const data = [
    advance(address, executableSize),
    BigInt(size - executableSize),
    protection.read | protection.write,
  ];
  return [map, { number: systemCalls.mprotect, arguments: data }];
}

function cannotMap(pid: number, result: bigint): KcareError {
  const errno = Number(-result);
  const name = getSystemErrorName(-errno);
  return new KcareError('TARGET_MEMORY', `process ${pid} could not map the image (${name})`, {
    pid,
    errno,
  });
}

/**
 * Unmaps an image. R1: a call that a killed patcher left to a thread may have done so already, and the process may use
 * the place for something else by now; such a call is over once all threads have stood in a commit.
 */
export function unmapImage(target: Target, image: ImageHeader, pauses: Pauses): void {
  if (isStillThere(image, target)) unmapRange(target, image.address, image.size, pauses);
}

function isStillThere({ address }: ImageHeader, { read }: Target): boolean {
  try {
    return headerLayout.magic.equals(read(address, headerLayout.magic.length));
  } catch (error) {
    if (error instanceof KcareError && error.code === 'TARGET_MEMORY') return false;
    throw error;
  }
}

/** Throws TARGET_MEMORY, TARGET_BUSY, TARGET_GONE. */
export function unmapRange(target: Caller, address: RemoteAddress, size: number, pauses: Pauses): void {
  const [result = -1n] = call(
    target,
    [{ number: systemCalls.munmap, arguments: [address, BigInt(size)] }],
    pauses,
  );
  if (result !== 0n) {
    throw new KcareError(
      'TARGET_MEMORY',
      `process ${target.pid} could not unmap ${hex(address)} (errno ${String(-result)})`,
      {
        pid: target.pid,
        errno: Number(-result),
      },
    );
  }
}

/** Writes the image and reads it back; no thread is stopped for this. */
function fillImage(target: Target, image: Image): void {
  const { address, executableSize } = image.header;
  const parts: [RemoteAddress, Uint8Array][] = [
    [address, image.constant],
    [advance(address, executableSize), image.data],
  ];
  for (const [start, bytes] of parts) {
    if (bytes.length === 0) continue;
    const end = lastUsedByte(bytes);
    target.write(start, bytes.subarray(0, end));
    if (Buffer.compare(target.read(start, end), bytes.subarray(0, end)) !== 0) {
      throw new KcareError(
        'TARGET_MEMORY',
        `process ${target.pid}: the image at ${hex(start)} reads back differently`,
      );
    }
  }
}

/** Fresh anonymous memory is zero: trailing zeros need no write, and untouched pages cost nothing (R8). */
function lastUsedByte(bytes: Uint8Array): number {
  let end = bytes.length;
  while (end > 1 && bytes[end - 1] === 0) end--;
  return end;
}

/** Read anew: images for other objects of the same commit have taken gaps meanwhile. */
function occupied(pid: number): OccupiedRange[] {
  const ranges = readMaps(pid).map(({ start, end, path }): OccupiedRange => ({
    start,
    end,
    grows: path === '[heap]' ? 'up' : path === '[stack]' ? 'down' : undefined,
  }));
  const heap = readHeapStart(pid);
  if (heap === undefined || ranges.some(({ grows }) => grows === 'up')) return ranges;
  // R1: a heap that is still to come needs its place, too.
  const above = ranges.findIndex(({ start }) => start > heap);
  return ranges.toSpliced(above < 0 ? ranges.length : above, 0, { start: heap, end: heap, grows: 'up' });
}

function call(target: Caller, calls: readonly RemoteCall[], pauses: Pauses): readonly bigint[] {
  const result = nativeEngine.call(target.pid, calls, {
    signalReturn: target.signalReturn(),
    timeoutMs: stopTimeoutMs,
  });
  switch (result.outcome) {
    case 'done':
      pauses.add(result.wasRunning ? result.pauseNs : 0, result.pauseNs);
      return result.results;
    case 'busy':
      throw new KcareError('TARGET_BUSY', `process ${target.pid}: ${result.reason}`, { pid: target.pid });
    case 'gone':
      throw new KcareError('TARGET_GONE', `process ${target.pid} ended`);
  }
}
