// The build-id of an ELF file that is open, from whichever of its notes holds it; 32-bit files as well.
import { fstatSync } from 'node:fs';
import { KcareError } from '../base/errors.js';
import { ByteReader, buildIdFromNotes, readNotes, sectionType, segmentType } from '../elf/index.js';
import { readAt } from './root-view.js';

const headerSize = 64;
const longestNotes = 64 * 1024;
const mostEntries = 65_535;

interface NotePlace {
  readonly offset: number;
  readonly size: number;
  readonly alignment: number;
}

/**
 * Lower-case hexadecimal; undefined for a file that is no ELF file, is damaged, or has no build-id. What a Go linker
 * writes as its own build-id (note type 4) is none: it does not name the bytes of the file.
 */
export function readBuildId(descriptor: number): string | undefined {
  try {
    for (const { offset, size, alignment } of notePlaces(descriptor)) {
      const bytes = readAt(descriptor, offset, Math.min(size, longestNotes));
      const buildId = buildIdFromNotes(readWholeNotes(bytes, alignment));
      if (buildId !== undefined) return buildId;
    }
    return undefined;
  } catch (thrown) {
    if (thrown instanceof KcareError && thrown.code === 'ELF_MALFORMED') return undefined;
    throw thrown;
  }
}

/** Damage behind the build-id does not hide it: notes are read one segment at a time, and others go on. */
function readWholeNotes(bytes: Buffer, alignment: number): ReturnType<typeof readNotes> {
  try {
    return readNotes(bytes, alignment);
  } catch (thrown) {
    if (thrown instanceof KcareError && thrown.code === 'ELF_MALFORMED') return [];
    throw thrown;
  }
}

/** Where the tables of an ELF header lie, for each class: offsets of fields within the header and within an entry. */
interface Layout {
  readonly is64: boolean;
  /** Position of the table's offset, and of entry size and count. */
  readonly table: number;
  readonly counts: number;
  readonly entrySize: number;
  /** In an entry. */
  readonly type: number;
  readonly offset: number;
  readonly size: number;
  readonly alignment: number;
  readonly noteType: number;
}

const segments: Readonly<Record<'32' | '64', Layout>> = {
  '64': {
    is64: true,
    table: 32,
    counts: 54,
    entrySize: 56,
    type: 0,
    offset: 8,
    size: 32,
    alignment: 48,
    noteType: segmentType.note,
  },
  '32': {
    is64: false,
    table: 28,
    counts: 42,
    entrySize: 32,
    type: 0,
    offset: 4,
    size: 16,
    alignment: 28,
    noteType: segmentType.note,
  },
};
const sections: Readonly<Record<'32' | '64', Layout>> = {
  '64': {
    is64: true,
    table: 40,
    counts: 58,
    entrySize: 64,
    type: 4,
    offset: 24,
    size: 32,
    alignment: 48,
    noteType: sectionType.note,
  },
  '32': {
    is64: false,
    table: 32,
    counts: 46,
    entrySize: 40,
    type: 4,
    offset: 16,
    size: 20,
    alignment: 32,
    noteType: sectionType.note,
  },
};

/** Segments first; the external linker of Go leaves the build-id in a section that no PT_NOTE covers. */
function* notePlaces(descriptor: number): Generator<NotePlace> {
  const header = readAt(descriptor, 0, headerSize);
  const isElf = header.length >= 52 && header.readUInt32BE(0) === 0x7f454c46;
  // Little-endian only: no big-endian machine runs this.
  if (!isElf || header[5] !== 1) return;
  const bits = header[4] === 2 ? '64' : '32';
  yield* placesIn(descriptor, header, segments[bits]);
  yield* placesIn(descriptor, header, sections[bits]);
}

function* placesIn(descriptor: number, header: Buffer, layout: Layout): Generator<NotePlace> {
  const reader = new ByteReader(header, 'ELF header', 'ELF_MALFORMED', layout.counts);
  const entrySize = reader.u16();
  const count = reader.u16();
  const tableOffset = wordAt(reader, layout.table, layout);
  if (entrySize !== layout.entrySize || count > mostEntries || tableOffset > fstatSync(descriptor).size)
    return;
  const table = readAt(descriptor, tableOffset, entrySize * count);
  for (let at = 0; at + entrySize <= table.length; at += entrySize) {
    const entry = new ByteReader(table.subarray(at, at + entrySize), 'table', 'ELF_MALFORMED', layout.type);
    if (entry.u32() !== layout.noteType) continue;
    yield {
      offset: wordAt(entry, layout.offset, layout),
      size: wordAt(entry, layout.size, layout),
      alignment: wordAt(entry, layout.alignment, layout),
    };
  }
}

function wordAt(reader: ByteReader, position: number, { is64 }: Layout): number {
  reader.position = position;
  return is64 ? reader.u64() : reader.u32();
}
