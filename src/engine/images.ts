// The images that a target holds, read from its memory: the only truth about what is applied.
import { advance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { decodeHeader, headerLayout, type ImageHeader } from '../link/index.js';
import type { Mapping } from '../proc/index.js';
import type { MemoryReader } from './frames.js';

/**
 * All images of kcare in the target. They begin anonymous, private, readable and executable mappings; a kernel that
 * merged such a mapping with a neighbour is no obstacle, because every page start within it is looked at.
 * Throws HEADER_MALFORMED when a header is damaged.
 */
export function findImages(maps: readonly Mapping[], read: MemoryReader): ImageHeader[] {
  return maps.filter(mayHoldImage).flatMap((mapping) => imagesIn(mapping, read));
}

/** Executable memory of other makers (a JIT compiler's) can be large; images lie at the start of a mapping or behind one another. */
const mostPagesSearched = 64;

function mayHoldImage(mapping: Mapping): boolean {
  return mapping.inode === 0 && mapping.path === '' && mapping.permissions === 'r-xp';
}

function imagesIn(mapping: Mapping, read: MemoryReader): ImageHeader[] {
  const images: ImageHeader[] = [];
  let address: RemoteAddress = mapping.start;
  for (let page = 0; page < mostPagesSearched && address < mapping.end; page++) {
    const image = imageAt(address, mapping, read);
    if (image) images.push(image);
    address = advance(address, image ? image.executableSize : 4096);
  }
  return images;
}

function imageAt(address: RemoteAddress, mapping: Mapping, read: MemoryReader): ImageHeader | undefined {
  if (!headerLayout.magic.equals(read(address, headerLayout.magic.length))) return undefined;
  return decodeHeader(address, (offset, length) => {
    if (advance(address, offset + length) > mapping.end) {
      throw new KcareError('HEADER_MALFORMED', 'image header: it runs over the end of its mapping');
    }
    return read(advance(address, offset), length);
  });
}
