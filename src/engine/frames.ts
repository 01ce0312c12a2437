// Finds the unwind entry for an address of a target, reading its tables from the target's own memory.
import { advance, distance, type RemoteAddress } from '../base/address.js';
import {
  ByteReader,
  findFrameRecord,
  parseEhFrame,
  parseFrameIndex,
  parseFrameRecord,
  parseProgramHeaders,
  segmentType,
  type FrameDescription,
} from '../elf/index.js';
import type { ImageHeader } from '../link/index.js';
import type { MappedObject, Mapping } from '../proc/index.js';

/** The unwind entry that covers an address; undefined when there is none. May throw a KcareError. */
export type FrameFinder = (address: RemoteAddress) => FrameDescription | undefined;

/** Exactly `length` bytes of the target, or a KcareError. */
export type MemoryReader = (address: RemoteAddress, length: number) => Uint8Array;

const pageSize = 4096;
/** No compiler writes longer records; a longer one is damage. */
const longestRecord = 1024 * 1024;
/** Of the tables of all objects together, bytes that are kept; further ones are read entry by entry. */
const mostKept = 32 * 1024 * 1024;
const entrySize = 8;

interface Table {
  readonly start: RemoteAddress;
  readonly end: RemoteAddress;
  readonly find: FrameFinder;
}

/** A finder over everything in the process that carries unwind tables: objects, the vdso, and images of ours. */
export function frameFinder(
  objects: readonly MappedObject[],
  maps: readonly Mapping[],
  images: readonly ImageHeader[],
  read: MemoryReader,
): FrameFinder {
  const budget = { left: mostKept };
  const vdso = maps.filter((mapping) => mapping.path === '[vdso]');
  const tables = [
    ...objects
      // What a file mapped as plain data would cover in memory may belong to another object.
      .filter(({ executable }) => executable)
      .map(({ start, end, bias }) => lazy(start, end, () => objectTable(start, bias, read, budget))),
    ...vdso.map(({ start, end }) => lazy(start, end, () => objectTable(start, start, read, budget))),
    ...images.map((image) =>
      lazy(image.address, advance(image.address, image.executableSize), () => imageTable(image, read)),
    ),
  ];
  return (address) => tables.find(({ start, end }) => start <= address && address < end)?.find(address);
}

/** Tables are read when the first address in their range is asked for. */
function lazy(start: RemoteAddress, end: RemoteAddress, make: () => FrameFinder): Table {
  let finder: FrameFinder | undefined;
  return { start, end, find: (address) => (finder ??= make())(address) };
}

function objectTable(
  start: RemoteAddress,
  bias: RemoteAddress,
  read: MemoryReader,
  budget: { left: number },
): FrameFinder {
  const segments = parseProgramHeaders(read(start, pageSize));
  const header = segments.find((segment) => segment.type === segmentType.gnuEhFrame);
  const none: FrameFinder = () => undefined;
  if (!header) return none;
  const headerAddress = advance(bias, header.address);
  const index = parseFrameIndex(read(headerAddress, 12));
  const tableSize = (index?.count ?? 0) * entrySize;
  if (!index || index.tableOffset + tableSize > header.memorySize) return none;
  const tableStart = advance(headerAddress, index.tableOffset);
  const kept = tableSize <= budget.left ? read(tableStart, tableSize) : undefined;
  if (kept) budget.left -= tableSize;
  const entry = (position: number): { address: number; record: number } => {
    const offset = position * entrySize;
    const bytes = kept?.subarray(offset, offset + entrySize) ?? read(advance(tableStart, offset), entrySize);
    const reader = new ByteReader(bytes, '.eh_frame_hdr');
    return { address: reader.i32(), record: reader.i32() };
  };
  return (address) => {
    const record = findFrameRecord(index.count, distance(headerAddress, address), entry);
    return record === undefined
      ? undefined
      : covering(readRecord(advance(headerAddress, record), read), address);
  };
}

function imageTable(image: ImageHeader, read: MemoryReader): FrameFinder {
  const start = advance(image.address, image.ehFrame.offset);
  const descriptions = parseEhFrame(read(start, image.ehFrame.size), Number(start));
  return (address) => descriptions.find((description) => covering(description, address) !== undefined);
}

function covering(description: FrameDescription, address: RemoteAddress): FrameDescription | undefined {
  const offset = Number(address) - description.start;
  return offset >= 0 && offset < description.length ? description : undefined;
}

function readRecord(address: RemoteAddress, read: MemoryReader): FrameDescription {
  const description = readWhole(address, read);
  const reader = new ByteReader(description, '.eh_frame', 'ELF_MALFORMED', 4);
  const common = readWhole(advance(address, 4 - reader.u32()), read);
  return parseFrameRecord(description, common, Number(address));
}

function readWhole(address: RemoteAddress, read: MemoryReader): Uint8Array {
  const reader = new ByteReader(read(address, 4), '.eh_frame');
  const length = reader.u32();
  if (length < 4 || length > longestRecord) throw reader.fail(`record of ${length} bytes`);
  return read(address, length + 4);
}
