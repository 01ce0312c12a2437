// Notes and build-ids.
import { ByteReader } from './reader.js';
import { noteType, sectionType, segmentType } from './constants.js';
import type { ElfFile, ElfNote } from './types.js';

/** All notes of a PT_NOTE segment or SHT_NOTE section whose entries are aligned to `alignment` (4 or 8). */
export function readNotes(bytes: Uint8Array, alignment = 4): ElfNote[] {
  const step = alignment === 8 ? 8 : 4;
  const reader = new ByteReader(bytes, 'note');
  const notes: ElfNote[] = [];
  while (reader.position + 12 <= bytes.length) {
    const nameSize = reader.u32();
    const descriptionSize = reader.u32();
    const type = reader.u32();
    const name = Buffer.from(reader.slice(nameSize)).toString('latin1').replace(/\0+$/, '');
    reader.align(step);
    const description = reader.slice(descriptionSize);
    reader.align(step);
    notes.push({ name, type, description });
  }
  return notes;
}

/** The GNU build-id among `notes` as lower-case hexadecimal, if there is one. */
export function buildIdFromNotes(notes: readonly ElfNote[]): string | undefined {
  const note = notes.find((candidate) => candidate.name === 'GNU' && candidate.type === noteType.gnuBuildId);
  return note && note.description.length > 0 ? Buffer.from(note.description).toString('hex') : undefined;
}

/** The GNU build-id of a file, from any of its note sections or segments. */
export function buildIdOf(elf: ElfFile): string | undefined {
  for (const section of elf.sections) {
    if (section.type !== sectionType.note) continue;
    const id = buildIdFromNotes(readNotes(section.bytes, section.alignment));
    if (id !== undefined) return id;
  }
  for (const segment of elf.segments) {
    if (segment.type !== segmentType.note) continue;
    const bytes = elf.bytes.subarray(segment.offset, segment.offset + segment.fileSize);
    const id = buildIdFromNotes(readNotes(bytes, segment.alignment));
    if (id !== undefined) return id;
  }
  return undefined;
}
