// The plan of one change in one target: everything that will be written, and what must be true before it is.
import { advance, hex, type RemoteAddress, type RemoteRange } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { jumpOffset, jumpSize, type Hunk } from '../patchfile/index.js';
import { headerLayout, imageStates, type ImageHeader } from './header.js';

export interface PlannedWrite {
  readonly address: RemoteAddress;
  /** What must be in memory now; same length as `replacement`. */
  readonly expected: Uint8Array;
  readonly replacement: Uint8Array;
}

export interface GuardedRange extends RemoteRange {
  readonly name: string;
}

/** A 32-bit word in a header of ours that tells later runs how far a commit came. */
export interface PlannedState {
  readonly address: RemoteAddress;
  /** Written before the first code write. */
  readonly during: number;
  /** Written after the last code write. */
  readonly after: number;
}

export interface Plan {
  readonly writes: readonly PlannedWrite[];
  readonly guarded: readonly GuardedRange[];
  readonly states: readonly PlannedState[];
  /** Images that nothing needs after the commit. */
  readonly discarded: readonly ImageHeader[];
}

export interface Transition {
  /** Images of the object that are in the target now, in whatever state. */
  readonly present: readonly ImageHeader[];
  /** The image to become live; undefined to unload. */
  readonly next?: ImageHeader | undefined;
  /** The process has unloaded the object: there is no code to restore. */
  readonly isObjectGone?: boolean;
  /** Old code that no thread may be in. */
  readonly guarded: readonly GuardedRange[];
  /** The bytes in memory now. */
  readonly read: (address: RemoteAddress, length: number) => Uint8Array;
}

interface Site {
  readonly name: string;
  readonly known: Uint8Array[];
  desired: Uint8Array;
}

/**
 * Plans apply, upgrade, unload and the repair of an interrupted commit alike (R2): every place that any image, old
 * or new, has to do with gets the bytes that the next image wants, or its original ones. What is there now must be
 * something that one of the images put or found there (R3), else BYTES_MISMATCH.
 */
export function planTransition({ present, next, isObjectGone, guarded, read }: Transition): Plan {
  const sites = new Map<RemoteAddress, Site>();
  const images = next ? [...present, next] : present;
  for (const image of isObjectGone ? [] : images) {
    for (const hunk of image.hunks) {
      const desired = image === next ? hunk.written : hunk.saved;
      const site = sites.get(hunk.jump);
      if (site && !equal(site.known[0], hunk.saved)) throw mismatch(hunk.name, hunk.jump, hunk.saved);
      if (site) {
        site.known.push(hunk.written);
        site.desired = desired;
      } else {
        sites.set(hunk.jump, { name: hunk.name, known: [hunk.saved, hunk.written], desired });
      }
    }
  }
  const writes = [...sites].flatMap(([address, { name, known, desired }]) => {
    const expected = read(address, desired.length);
    if (!known.some((bytes) => equal(bytes, expected))) throw mismatch(name, address, expected);
    return equal(expected, desired) ? [] : [{ address, expected, replacement: desired }];
  });
  return {
    writes: next ? [presence(next), ...writes] : writes,
    guarded: [...guarded, ...present.map(guardedImage)],
    states: [
      ...present.map((image) => stateWord(image, 'removing', 'removing')),
      ...(next ? [stateWord(next, 'committing', 'active')] : []),
    ],
    discarded: present,
  };
}

/** Every place holds what the active image wrote there. */
export function isIntact(image: ImageHeader, read: Transition['read']): boolean {
  return (
    image.state === 'active' &&
    image.hunks.every((hunk) => equal(read(hunk.jump, hunk.written.length), hunk.written))
  );
}

/** Some place in the code still jumps to the image. */
export function isReferenced(image: ImageHeader, read: Transition['read']): boolean {
  return image.hunks.some((hunk) => equal(read(hunk.jump, hunk.written.length), hunk.written));
}

/**
 * Old functions and the parts that belong to them, as no thread may be inside; of independent ones only the bytes that
 * the jump overwrites.
 */
export function guardedFunctions(hunks: readonly Hunk[], bias: RemoteAddress): GuardedRange[] {
  return hunks.map((hunk) => {
    const { name, address, size, independent } = hunk;
    const start = advance(bias, address + (independent ? jumpOffset(hunk) : 0));
    return { name, start, end: advance(start, independent ? jumpSize : size) };
  });
}

/** Writes nothing new, but lets the commit see that the image is there: the process may have executed another program. */
export function presence(image: ImageHeader): PlannedWrite {
  return { address: image.address, expected: headerLayout.magic, replacement: headerLayout.magic };
}

/** The code of an image, as no thread may be inside. */
export function guardedImage(image: ImageHeader): GuardedRange {
  return {
    name: `patch of ${image.description.objectName} at level ${image.level}`,
    start: image.address,
    end: advance(image.address, image.executableSize),
  };
}

function stateWord(
  image: ImageHeader,
  during: keyof typeof imageStates,
  after: keyof typeof imageStates,
): PlannedState {
  return {
    address: advance(image.address, headerLayout.stateOffset),
    during: imageStates[during],
    after: imageStates[after],
  };
}

function mismatch(name: string, address: RemoteAddress, found: Uint8Array): KcareError {
  const bytes = Buffer.from(found).toString('hex');
  return new KcareError('BYTES_MISMATCH', `${name} at ${hex(address)} holds unknown bytes ${bytes}`, {
    function: name,
    address: hex(address),
    found: bytes,
  });
}

function equal(left: Uint8Array | undefined, right: Uint8Array): boolean {
  return left !== undefined && Buffer.compare(left, right) === 0;
}
