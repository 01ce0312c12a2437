// An image as an ELF file for debuggers, which know no code but that of files: its code, its unwind tables, its names.
import { advance, type RemoteAddress } from '../base/address.js';
import { fileType, parseEhFrame, sectionFlag, sectionType } from '../elf/index.js';
import { writeElf, type SectionToWrite, type SymbolToWrite } from '../patchfile/index.js';
import type { ImageHeader } from './header.js';

const symbolKinds = { function: 2, local: 0, global: 1 } as const;

/**
 * The bytes of the file. All addresses in it are those in the process; `image` holds the read-and-execute part. Code
 * that is no replaced function (cold parts, new functions) is named after the patch and its place. Throws ELF_MALFORMED.
 */
export function symbolFile(header: ImageHeader, image: Uint8Array): Uint8Array {
  const { address, ehFrame, hunks, description } = header;
  const tables = image.subarray(ehFrame.offset, ehFrame.offset + ehFrame.size);
  const tableAddress = advance(address, ehFrame.offset);
  const functions = parseEhFrame(tables, Number(tableAddress)).filter(
    ({ start, length }) => start >= Number(address) && start + length <= Number(address) + image.length,
  );
  const names = new Map(hunks.map(({ name, replacement }) => [Number(replacement), name]));
  const starts = [...names.keys(), ...functions.map(({ start }) => start)];
  const ends = [...names.keys(), ...functions.map(({ start, length }) => start + length)];
  const from = Math.min(...starts) - Number(address);
  const to = Math.max(...ends) - Number(address);
  const lengths = new Map(functions.map(({ start, length }) => [start, length]));
  const symbols = [...new Set(starts)].map((start): SymbolToWrite => {
    const place = (start - Number(address)).toString(16);
    return {
      name: names.get(start) ?? `patch_${description.objectName.replace(/\W/g, '_')}_0x${place}`,
      section: '.text',
      value: start,
      size: lengths.get(start) ?? 0,
      type: symbolKinds.function,
      binding: symbolKinds.global,
    };
  });
  const section = (name: string, start: RemoteAddress, flags: number): SectionToWrite => ({
    name,
    type: sectionType.progbits,
    flags: sectionFlag.alloc | flags,
    alignment: 1,
    address: start,
    bytes: name === '.text' ? image.subarray(from, to) : tables,
  });
  return writeElf(
    fileType.executable,
    [section('.text', advance(address, from), sectionFlag.execute), section('.eh_frame', tableAddress, 0)],
    symbols,
    [],
  );
}
