// The patched code of a process as files for debuggers. Only reads, so a debugger may be attached meanwhile.
import type { RemoteAddress } from '../base/address.js';
import { symbolFile } from '../link/index.js';
import { ProcessMemory, readMaps } from '../proc/index.js';
import { findImages } from './images.js';

export interface SymbolFile {
  readonly objectName: string;
  readonly level: number;
  /** Of the image. */
  readonly address: RemoteAddress;
  /** An ELF file with code, names and unwind tables at the addresses that they have in the process. */
  readonly bytes: Uint8Array;
}

/** One file for each image in the process. Throws TARGET_GONE, NOT_PERMITTED, HEADER_MALFORMED, ELF_MALFORMED. */
export function symbolFiles(pid: number): SymbolFile[] {
  const memory = ProcessMemory.open(pid);
  try {
    return findImages(readMaps(pid), (address, length) => memory.read(address, length)).map((image) => ({
      objectName: image.description.objectName,
      level: image.level,
      address: image.address,
      bytes: symbolFile(image, memory.read(image.address, image.executableSize)),
    }));
  } finally {
    memory.close();
  }
}
