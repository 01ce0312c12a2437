// Sections of a kernel object that hold one entry for a place in the code: which they are, and their entries by that place.
import { KcareError } from '../base/errors.js';
import {
  relocationsFor,
  type ElfFile,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';

interface SpecialSection {
  /** Relocations of one entry, the first of which names the place in the code. */
  readonly relocations: number;
  /** Bytes of one entry, where versions of the kernel do not differ. */
  readonly entrySize?: number;
  /** A section with one entry for each entry of this one, in the same order. */
  readonly parallel?: { readonly name: string; readonly entrySize: number };
}

/** Structures of arch/x86/include/asm and include/linux of Linux 5.10 to 6.12. */
export const specialSections: Readonly<Record<string, SpecialSection>> = {
  '.altinstructions': { relocations: 2 },
  '.smp_locks': { relocations: 1, entrySize: 4 },
  '.parainstructions': { relocations: 1 },
  __mcount_loc: { relocations: 1, entrySize: 8 },
  __patchable_function_entries: { relocations: 1, entrySize: 8 },
  __bug_table: { relocations: 2, entrySize: 12 },
  __ex_table: { relocations: 2, entrySize: 12 },
  __jump_table: { relocations: 3, entrySize: 16 },
  '.static_call_sites': { relocations: 2, entrySize: 8 },
  '.return_sites': { relocations: 1, entrySize: 4 },
  '.retpoline_sites': { relocations: 1, entrySize: 4 },
  '.call_sites': { relocations: 1, entrySize: 4 },
  '.ibt_endbr_seal': { relocations: 1, entrySize: 4 },
  '.orc_unwind_ip': {
    relocations: 1,
    entrySize: 4,
    parallel: { name: '.orc_unwind', entrySize: 6 },
  },
};

/** Sections that are taken along as a whole when their neighbour of the same table is. */
export const replacementSection = '.altinstr_replacement';

export interface SpecialEntry {
  readonly section: ElfSection;
  readonly start: number;
  readonly end: number;
  /** The section of the code that the entry is about. */
  readonly codeSection: number;
  /** The entry that belongs to it in the parallel section. */
  readonly parallel?: { readonly section: ElfSection; readonly start: number; readonly end: number };
  /** The instructions that an alternative puts in place. */
  readonly replacement?: { readonly section: ElfSection; readonly start: number; readonly end: number };
}

/** All entries of the special sections of `elf`. Throws ELF_MALFORMED when a section is not made of such entries. */
export function specialEntries(elf: ElfFile, symbols: readonly ElfSymbol[]): SpecialEntry[] {
  return elf.sections.flatMap((section) => {
    const kind = specialSections[section.name];
    return kind === undefined || section.bytes.length === 0 ? [] : entriesOf(elf, symbols, section, kind);
  });
}

function entriesOf(
  elf: ElfFile,
  symbols: readonly ElfSymbol[],
  section: ElfSection,
  kind: SpecialSection,
): SpecialEntry[] {
  const relocations = [...relocationsFor(elf, section.index)].sort((a, b) => a.offset - b.offset);
  const size = kind.entrySize ?? (section.bytes.length * kind.relocations) / relocations.length;
  const count = section.bytes.length / size;
  if (!Number.isInteger(size) || !Number.isInteger(count) || size === 0)
    throw malformed(section, `${section.bytes.length} bytes with ${relocations.length} relocations`);
  const first = new Map<number, ElfRelocation>();
  for (const relocation of relocations) {
    const index = Math.floor(relocation.offset / size);
    if (!first.has(index)) first.set(index, relocation);
  }
  return Array.from({ length: count }, (_, index): SpecialEntry => {
    const start = index * size;
    const relocation = first.get(index);
    const symbol = relocation && symbols[relocation.symbolIndex];
    if (relocation?.offset !== start || symbol === undefined || symbol.sectionIndex === 0)
      throw malformed(section, `entry ${index} names no place in the code`);
    const entry = { section, start, end: start + size, codeSection: symbol.sectionIndex };
    if (section.name === '.altinstructions')
      return { ...entry, replacement: replacementOf(elf, symbols, section, start, size, relocations) };
    if (kind.parallel === undefined) return entry;
    return { ...entry, parallel: parallelOf(elf, section, kind.parallel, index, count) };
  });
}

function parallelOf(
  elf: ElfFile,
  section: ElfSection,
  { name, entrySize }: { readonly name: string; readonly entrySize: number },
  index: number,
  count: number,
): { section: ElfSection; start: number; end: number } {
  const other = elf.sections.find((candidate) => candidate.name === name);
  if (other?.bytes.length !== count * entrySize) throw malformed(section, `${name} does not go with it`);
  return { section: other, start: index * entrySize, end: (index + 1) * entrySize };
}

/** struct alt_instr: where the lengths of the old and new instructions are, by the size of the structure. */
const replacementLengthAt: Readonly<Record<number, number>> = { 12: 11, 13: 11, 14: 13 };

function replacementOf(
  elf: ElfFile,
  symbols: readonly ElfSymbol[],
  section: ElfSection,
  start: number,
  size: number,
  relocations: readonly ElfRelocation[],
): { section: ElfSection; start: number; end: number } {
  const lengthAt = replacementLengthAt[size];
  const relocation = relocations.find(({ offset }) => offset === start + 4);
  const symbol = relocation && symbols[relocation.symbolIndex];
  const target = symbol && elf.sections[symbol.sectionIndex];
  const length = lengthAt === undefined ? undefined : section.bytes[start + lengthAt];
  if (length === undefined || !relocation || !symbol || target?.name !== replacementSection)
    throw malformed(section, `the alternative at ${start} is of an unknown form`);
  const begin = symbol.value + relocation.addend;
  if (begin < 0 || begin + length > target.bytes.length)
    throw malformed(section, `the alternative at ${start} lies outside`);
  return { section: target, start: begin, end: begin + length };
}

function malformed(section: ElfSection, why: string): KcareError {
  return new KcareError('ELF_MALFORMED', `${section.name}: ${why}.`);
}
