// Unwind tables: bytes of .eh_frame → entries with their address ranges and instructions.
// Format: Linux Standard Base core specification, "Exception Frames", and DWARF 5, section 6.4.
import { ByteReader } from './reader.js';

export interface CommonInformation {
  /** Offset of the record in the section, and its whole size with the length field, bytes. */
  readonly offset: number;
  readonly size: number;
  readonly codeAlignment: number;
  readonly dataAlignment: number;
  readonly returnRegister: number;
  /** The entries describe frames of signal handlers: the interrupted instruction itself is the place. */
  readonly isSignalFrame: boolean;
  /** DW_EH_PE encoding of the addresses in the entries. */
  readonly pointerEncoding: number;
  readonly hasAugmentationData: boolean;
  readonly instructions: Uint8Array;
}

export interface FrameDescription {
  readonly offset: number;
  readonly size: number;
  readonly common: CommonInformation;
  /** Offset in the section of the field that holds the first address. */
  readonly startField: number;
  /** First address covered and the number of bytes covered. */
  readonly start: number;
  readonly length: number;
  readonly instructions: Uint8Array;
}

const pointerEncoding = {
  absolute: 0,
  udata4: 3,
  sdata4: 0x0b,
  sdata8: 0x0c,
  udata8: 4,
  omit: 0xff,
} as const;

/**
 * Parses the whole section. `sectionAddress` is the address of its first byte (0 in a relocatable file, where the
 * addresses are what the relocations make of them). Throws ELF_MALFORMED.
 */
export function parseEhFrame(bytes: Uint8Array, sectionAddress: number): FrameDescription[] {
  const reader = new ByteReader(bytes, '.eh_frame');
  const commons = new Map<number, CommonInformation>();
  const descriptions: FrameDescription[] = [];
  while (reader.position + 4 <= bytes.length) {
    const offset = reader.position;
    const length = reader.u32();
    // A zero length ends the table of one input file; the linker leaves one at the very end.
    if (length === 0) continue;
    if (length === 0xffffffff) throw reader.fail('64-bit records are not supported');
    const idField = reader.position;
    const end = idField + length;
    if (end > bytes.length) throw reader.fail(`record at ${offset} runs over the end`);
    const id = reader.u32();
    if (id === 0) {
      commons.set(
        offset,
        parseCommon(
          new ByteReader(bytes.subarray(0, end), '.eh_frame', 'ELF_MALFORMED', reader.position),
          offset,
        ),
      );
    } else {
      const common = commons.get(idField - id);
      if (!common) throw reader.fail(`record at ${offset} refers to no common record`);
      const entry = new ByteReader(bytes.subarray(0, end), '.eh_frame', 'ELF_MALFORMED', reader.position);
      descriptions.push(parseDescription(entry, offset, common, sectionAddress));
    }
    reader.position = end;
  }
  return descriptions;
}

function parseCommon(reader: ByteReader, offset: number): CommonInformation {
  const version = reader.u8();
  if (version !== 1 && version !== 3) throw reader.fail(`version ${version} of a common record`);
  const augmentation = reader.cString();
  const codeAlignment = reader.uleb128();
  const dataAlignment = reader.sleb128();
  const returnRegister = version === 1 ? reader.u8() : reader.uleb128();
  let encoding: number = pointerEncoding.absolute;
  let isSignalFrame = false;
  const hasAugmentationData = augmentation.startsWith('z');
  if (hasAugmentationData) {
    const size = reader.uleb128();
    const end = reader.position + size;
    for (const letter of augmentation.slice(1)) {
      if (letter === 'R') encoding = reader.u8();
      else if (letter === 'S') isSignalFrame = true;
      else if (letter === 'L') reader.u8();
      else if (letter === 'P') readEncoded(reader, reader.u8(), 0);
      else if (letter !== 'B') throw reader.fail(`augmentation "${augmentation}"`);
    }
    reader.position = end;
  } else if (augmentation !== '') {
    throw reader.fail(`augmentation "${augmentation}"`);
  }
  const instructions = reader.slice(reader.length - reader.position);
  return {
    offset,
    size: reader.length - offset,
    codeAlignment,
    dataAlignment,
    returnRegister,
    isSignalFrame,
    pointerEncoding: encoding,
    hasAugmentationData,
    instructions,
  };
}

function parseDescription(
  reader: ByteReader,
  offset: number,
  common: CommonInformation,
  sectionAddress: number,
): FrameDescription {
  const startField = reader.position;
  const start = readEncoded(reader, common.pointerEncoding, sectionAddress);
  const length = readEncoded(reader, common.pointerEncoding & 0x0f, 0);
  if (common.hasAugmentationData) reader.slice(reader.uleb128());
  const instructions = reader.slice(reader.length - reader.position);
  return { offset, size: reader.length - offset, common, startField, start, length, instructions };
}

function readEncoded(reader: ByteReader, encoding: number, sectionAddress: number): number {
  const field = sectionAddress + reader.position;
  let value: number;
  switch (encoding & 0x0f) {
    case pointerEncoding.absolute:
    case pointerEncoding.udata8:
    case pointerEncoding.sdata8:
      value = Number(reader.bigI64());
      break;
    case pointerEncoding.udata4:
      value = reader.u32();
      break;
    case pointerEncoding.sdata4:
      value = reader.i32();
      break;
    default:
      throw reader.fail(`pointer encoding ${encoding}`);
  }
  const application = encoding & 0x70;
  if (application === 0x10) return field + value;
  if (application === 0) return value;
  throw reader.fail(`pointer encoding ${encoding}`);
}

/**
 * One entry on its own, for memory that is read piece by piece. `description` and `common` hold one whole record
 * each, from its length field on; `address` is that of the entry's length field.
 */
export function parseFrameRecord(
  description: Uint8Array,
  common: Uint8Array,
  address: number,
): FrameDescription {
  const commonReader = new ByteReader(common, '.eh_frame', 'ELF_MALFORMED', 8);
  const entryReader = new ByteReader(description, '.eh_frame', 'ELF_MALFORMED', 8);
  return parseDescription(entryReader, 0, parseCommon(commonReader, 0), address);
}
