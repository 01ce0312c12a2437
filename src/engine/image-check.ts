// What must hold of an image before anything is done on its word: the target may have written the header itself.
import { advance, hex, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import type { ImageHeader, ImageHunk, ImageState } from '../link/index.js';
import type { MappedObject, Mapping } from '../proc/index.js';
import type { MemoryReader } from './frames.js';
import { updatesInEffect } from './hook-marks.js';

const jumpOperation = 0xe9;
const jumpSize = 5;

function fail(image: ImageHeader, what: string): never {
  throw new KcareError('HEADER_MALFORMED', `the image header at ${hex(image.address)} ${what}`, {
    address: hex(image.address),
  });
}

/**
 * Throws HEADER_MALFORMED unless the image is made of private anonymous memory from its start to its end, so that
 * unmapping it takes nothing else away, and each hunk is a jump from its function into the image.
 */
export function checkImage(image: ImageHeader, maps: readonly Mapping[]): void {
  const end = advance(image.address, image.size);
  let covered: RemoteAddress = image.address;
  for (const mapping of maps) {
    if (mapping.start > covered || mapping.end <= covered) continue;
    if (!isOwnMemory(mapping)) break;
    covered = mapping.end;
  }
  if (covered < end) fail(image, 'claims memory that is not of an image');
  for (const hunk of image.hunks) checkHunk(image, hunk);
}

/** The data of an image may be merged with the heap behind it, whose name the whole mapping then has. */
function isOwnMemory({ inode, path, permissions }: Mapping): boolean {
  return inode === 0 && (path === '' || path === '[heap]') && permissions.endsWith('p');
}

function checkHunk(image: ImageHeader, hunk: ImageHunk): void {
  const behind = advance(hunk.jump, hunk.written.length);
  if (hunk.jump < hunk.function || behind > advance(hunk.function, hunk.functionSize)) {
    fail(image, 'has a jump outside of its function');
  }
  const { written } = hunk;
  if (written.length !== jumpSize || written[0] !== jumpOperation)
    fail(image, 'writes something else than a jump');
  const target = advance(
    behind,
    new DataView(written.buffer, written.byteOffset, jumpSize).getInt32(1, true),
  );
  const isInside = target >= image.address && target < advance(image.address, image.executableSize);
  if (target !== hunk.replacement || !isInside) fail(image, 'has a jump to elsewhere');
}

/** Throws HEADER_MALFORMED when an image for `object` has to do with other memory than the code of that object. */
export function checkReach(image: ImageHeader, object: MappedObject): void {
  for (const { jump, written } of image.hunks) {
    if (!isPrivateCode(object, jump, written.length))
      fail(image, `has a jump outside of the code of ${object.name}`);
  }
}

/** The range is executed by this process and, when written to, changed for it only: never in the file. */
export function isPrivateCode(object: MappedObject, start: RemoteAddress, size: number): boolean {
  const holds = (address: RemoteAddress): boolean =>
    object.mappings.some(
      (mapping) => mapping.start <= address && address < mapping.end && /^..xp$/.test(mapping.permissions),
    );
  return holds(start) && holds(advance(start, size - 1));
}

/**
 * An image that calls itself active, but to which no code leads (the object was unloaded and perhaps loaded again),
 * counts as removed (R6); one to which only some places lead, as interrupted (R2).
 */
export function effectiveState(image: ImageHeader, read: MemoryReader): ImageState {
  if (image.state !== 'active') return image.state;
  const inPlace = image.hunks.filter((hunk) => isInPlace(hunk, read)).length;
  if (inPlace === image.hunks.length) return 'active';
  return inPlace === 0 ? 'removed' : 'committing';
}

/** A commit took the image out of effect, no code leads to it, and no data have its form: it only has to be unmapped. */
export function isSpent(image: ImageHeader, read: MemoryReader): boolean {
  return (
    image.state === 'removing' &&
    !image.hunks.some((hunk) => isInPlace(hunk, read)) &&
    updatesInEffect(read, image).length === 0
  );
}

/** The jump is in memory; where nothing is mapped any more, it is not. */
export function isInPlace({ jump, written }: ImageHunk, read: MemoryReader): boolean {
  try {
    return Buffer.compare(read(jump, written.length), written) === 0;
  } catch (error) {
    if (error instanceof KcareError && error.code === 'TARGET_MEMORY') return false;
    throw error;
  }
}
