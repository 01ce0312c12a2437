// The unwind entries of compiled functions, with the exception tables that they name.
// Format: Linux Standard Base core specification, "Exception Frames"; GCC's unwind-pe.h for the encodings.
import { parseEhFrame, type ElfRelocation, type ElfSection, type FrameDescription } from '../elf/index.js';
import type { CodeObject, ObjectFunction } from './code-object.js';

export interface FrameEntry {
  /** .eh_frame */
  readonly section: ElfSection;
  readonly description: FrameDescription;
  /** Relocations of the entry beside that of its first address: of its exception table, if it has one. */
  readonly own: readonly ElfRelocation[];
  /** Relocations of the common record: of the personality routine, if it has one. */
  readonly common: readonly ElfRelocation[];
}

const known = new WeakMap<CodeObject, ReadonlyMap<string, FrameEntry>>();

function entriesOf(object: CodeObject): ReadonlyMap<string, FrameEntry> {
  let entries = known.get(object);
  if (!entries) known.set(object, (entries = readEntries(object)));
  return entries;
}

function readEntries(object: CodeObject): Map<string, FrameEntry> {
  const entries = new Map<string, FrameEntry>();
  for (const section of object.elf.sections.filter(({ name }) => name === '.eh_frame')) {
    const relocations = object.relocations(section);
    const within = (start: number, size: number): ElfRelocation[] =>
      relocations.filter(({ offset }) => offset >= start && offset < start + size);
    for (const description of parseEhFrame(section.bytes, 0)) {
      const [start, ...own] = within(
        description.startField,
        description.offset + description.size - description.startField,
      );
      const symbol = start?.offset === description.startField ? object.symbols[start.symbolIndex] : undefined;
      if (!start || !symbol) continue;
      const common = within(description.common.offset, description.common.size);
      const entry = { section, description, own, common };
      entries.set(`${symbol.sectionIndex} ${symbol.value + start.addend}`, entry);
    }
  }
  return entries;
}

/** The entry that begins where the function does. */
export function frameEntryOf(object: CodeObject, part: ObjectFunction): FrameEntry | undefined {
  return entriesOf(object).get(`${part.section.index} ${part.offset}`);
}

/** Equal for the same exception handling in two compiles: landing pads are numbers there, handlers are relocations. */
export function exceptionIdentity(object: CodeObject, part: ObjectFunction): string {
  const entry = frameEntryOf(object, part);
  if (!entry || entry.own.length === 0) return '';
  return entry.own
    .map((relocation) => {
      const { reference, addend } = object.resolve(relocation);
      if (reference.kind !== 'data') return object.identity(relocation);
      return `${addend} ${object.contentIdentity(reference.section)}`;
    })
    .join('\n');
}
