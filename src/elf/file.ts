// Bytes of a file → headers, sections and segments.
import elfy from 'elfy';
import { KcareError } from '../base/errors.js';
import { ByteReader } from './reader.js';
import { machineX86_64, sectionType } from './constants.js';
import type { ElfFile, ElfSection, ElfSegment } from './types.js';

const headerSize = 64;
const sectionHeaderSize = 64;
const programHeaderSize = 56;

/**
 * Parses a 64-bit little-endian x86-64 ELF file. Section names and ranges come from the elfy package; types,
 * flags, alignment and entry size are read here, because elfy 1.0.0 names the former and misreads the latter.
 * Throws ELF_MALFORMED or ELF_UNSUPPORTED.
 */
export function parseElf(bytes: Uint8Array): ElfFile {
  checkIdentification(bytes);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const reader = new ByteReader(bytes, 'ELF header');
  reader.position = 58;
  const sectionEntrySize = reader.u16();
  const sectionCount = reader.u16();
  if (sectionCount > 0 && sectionEntrySize !== sectionHeaderSize) {
    throw reader.fail(`section headers of ${sectionEntrySize} bytes`);
  }
  let parsed: ReturnType<typeof elfy.parse>;
  try {
    parsed = elfy.parse(buffer);
  } catch (error) {
    throw new KcareError(
      'ELF_MALFORMED',
      `ELF file: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  reader.position = 16;
  const type = reader.u16();
  const machine = reader.u16();
  const sections = parsed.body.sections.map((section, index) => {
    reader.position = parsed.shoff + index * sectionHeaderSize + 4;
    const rawType = reader.u32();
    const flags = Number(reader.bigU64() & 0xffffffffn);
    reader.position = parsed.shoff + index * sectionHeaderSize + 48;
    const alignment = reader.u64();
    const entrySize = reader.u64();
    const occupied = rawType === sectionType.nobits || rawType === sectionType.null ? 0 : section.size;
    // What takes no bytes may claim any offset, also one behind the end of the file.
    if (occupied > 0 && section.off + occupied > bytes.length)
      throw reader.fail(`section ${index} lies outside the file`);
    return {
      index,
      name: typeof section.name === 'string' ? section.name : '',
      type: rawType,
      flags,
      address: section.addr,
      offset: section.off,
      size: section.size,
      link: section.link,
      info: section.info,
      alignment,
      entrySize,
      bytes: bytes.subarray(section.off, section.off + occupied),
    } satisfies ElfSection;
  });
  return { bytes, type, machine, entry: parsed.entry, sections, segments: parseProgramHeaders(bytes) };
}

/** Throws unless `bytes` begin as a 64-bit little-endian x86-64 ELF file does. */
function checkIdentification(bytes: Uint8Array): void {
  const reader = new ByteReader(bytes, 'ELF header');
  if (reader.u32() !== 0x464c457f) throw reader.fail('no ELF magic');
  const is64Bit = reader.u8() === 2;
  const isLittleEndian = reader.u8() === 1;
  reader.position = 18;
  const machine = reader.u16();
  if (!is64Bit || !isLittleEndian || machine !== machineX86_64) {
    throw new KcareError('ELF_UNSUPPORTED', `ELF file for machine ${machine}, ${is64Bit ? 64 : 32} bits`);
  }
  if (bytes.length < headerSize) throw reader.fail('header is cut off');
}

/**
 * The program headers alone; `bytes` need hold no more than the ELF header and the program headers, as they are
 * found at the start of a mapping.
 */
export function parseProgramHeaders(bytes: Uint8Array): ElfSegment[] {
  checkIdentification(bytes);
  const reader = new ByteReader(bytes, 'program headers', 'ELF_MALFORMED', 32);
  const tableOffset = reader.u64();
  reader.position = 54;
  const entrySize = reader.u16();
  const count = reader.u16();
  if (count === 0) return [];
  if (entrySize !== programHeaderSize) throw reader.fail(`entries of ${entrySize} bytes`);
  return Array.from({ length: count }, (_, index) => {
    reader.position = tableOffset + index * programHeaderSize;
    const type = reader.u32();
    const flags = reader.u32();
    const offset = reader.u64();
    const address = reader.u64();
    reader.u64();
    return {
      type,
      flags,
      offset,
      address,
      fileSize: reader.u64(),
      memorySize: reader.u64(),
      alignment: reader.u64(),
    };
  });
}

export function findSection(elf: ElfFile, name: string): ElfSection | undefined {
  return elf.sections.find((section) => section.name === name);
}

/** The bytes that the file puts at virtual address `address`; throws when they are not all in one segment's file part. */
export function bytesAtAddress(elf: ElfFile, address: number, size: number): Uint8Array {
  for (const segment of elf.segments) {
    if (segment.type !== 1 || address < segment.address) continue;
    if (address + size > segment.address + segment.fileSize) continue;
    const start = segment.offset + (address - segment.address);
    if (start + size > elf.bytes.length) break;
    return elf.bytes.subarray(start, start + size);
  }
  throw new KcareError('ELF_MALFORMED', `no bytes in the file for address 0x${address.toString(16)}+${size}`);
}

/** Lowest and highest virtual address of the loadable segments; the difference is the object's size in memory. */
export function loadRange(segments: readonly ElfSegment[]): { start: number; end: number } {
  const loaded = segments.filter((segment) => segment.type === 1);
  if (loaded.length === 0) throw new KcareError('ELF_MALFORMED', 'no loadable segment');
  return {
    start: Math.min(...loaded.map((segment) => segment.address)),
    end: Math.max(...loaded.map((segment) => segment.address + segment.memorySize)),
  };
}
