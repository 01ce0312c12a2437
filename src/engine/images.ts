// The images that a target holds, read from its memory: the only truth about what is applied.
import { advance, distance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { decodeHeader, headerLayout, type ImageHeader } from '../link/index.js';
import type { Mapping } from '../proc/index.js';
import type { MemoryReader } from './frames.js';
import { checkImage, effectiveState } from './image-check.js';

/**
 * All images of kcare in the target. They begin anonymous, private, readable and executable mappings; a kernel that
 * merged such a mapping with a neighbour is no obstacle, because every page start within it is looked at.
 * The state of each is what is in effect, also where the target has changed its code since. Throws HEADER_MALFORMED
 * when a header is damaged or claims what is not its own.
 */
export function findImages(maps: readonly Mapping[], read: MemoryReader): ImageHeader[] {
  const images: ImageHeader[] = [];
  for (const mapping of maps) {
    if (!mayHoldImage(mapping)) continue;
    for (const image of imagesIn(mapping, read)) {
      if (images.push(image) > mostImages)
        throw new KcareError('HEADER_MALFORMED', `the process holds more than ${mostImages} images`);
    }
  }
  return images.map((image) => {
    checkImage(image, maps);
    return { ...image, state: effectiveState(image, read) };
  });
}

/**
 * Executable memory of other makers (a JIT compiler's) can be large, and the kernel merges it with an image beside it.
 * Images lie at the start or the end of such a mapping, or behind one another.
 */
const searchedAtEachEnd = 256 * 4096;
/** Of all objects together; headers that a process forges must not fill our memory. */
const mostImages = 256;

/** As the call that maps an image makes it. */
export function mayHoldImage(mapping: Mapping): boolean {
  return mapping.inode === 0 && mapping.path === '' && mapping.permissions === 'r-xp';
}

function* imagesIn(mapping: Mapping, read: MemoryReader): Generator<ImageHeader> {
  let address: RemoteAddress = mapping.start;
  let searchEnd = advance(address, searchedAtEachEnd);
  while (address < mapping.end) {
    if (address >= searchEnd && distance(address, mapping.end) > searchedAtEachEnd) {
      address = advance(mapping.end, -searchedAtEachEnd);
    }
    const image = imageAt(address, mapping, read);
    if (image) yield image;
    address = advance(address, image ? image.executableSize : 4096);
    if (image) searchEnd = advance(address, searchedAtEachEnd);
  }
}

/** Throws HEADER_MALFORMED when there is a header that is damaged. */
export function imageAt(
  address: RemoteAddress,
  mapping: Mapping,
  read: MemoryReader,
): ImageHeader | undefined {
  if (!beginsImage(address, read)) return undefined;
  return decodeHeader(address, (offset, length) => {
    if (advance(address, offset + length) > mapping.end) {
      throw new KcareError('HEADER_MALFORMED', 'image header: it runs over the end of its mapping');
    }
    return read(advance(address, offset), length);
  });
}

/** Memory that the process has unmapped since its maps were read holds no image. */
function beginsImage(address: RemoteAddress, read: MemoryReader): boolean {
  try {
    return headerLayout.magic.equals(read(address, headerLayout.magic.length));
  } catch (error) {
    if (error instanceof KcareError && error.code === 'TARGET_MEMORY') return false;
    throw error;
  }
}
