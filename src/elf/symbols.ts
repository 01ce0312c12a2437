// Symbol tables with GNU versions, and relocation tables.
import { KcareError } from '../base/errors.js';
import { ByteReader, stringAt } from './reader.js';
import { gnuIfunc, sectionIndex, sectionType, symbolBindings, symbolTypes } from './constants.js';
import { findSection } from './file.js';
import type { ElfFile, ElfRelocation, ElfSection, ElfSymbol } from './types.js';

const symbolSize = 24;
const relaSize = 24;

/** All symbols of `.symtab` or `.dynsym`, the null symbol first so that indexes fit; [] when there is no such table. */
export function readSymbols(elf: ElfFile, tableName: '.symtab' | '.dynsym'): ElfSymbol[] {
  const table = findSection(elf, tableName);
  return table ? readSymbolTable(elf, table) : [];
}

export function readSymbolTable(elf: ElfFile, table: ElfSection): ElfSymbol[] {
  const strings = linkedSection(elf, table).bytes;
  const versions = table.type === sectionType.dynsym ? readVersions(elf) : undefined;
  const extended = elf.sections.find(
    (section) => section.type === sectionType.symtabShndx && section.link === table.index,
  );
  const extendedReader = extended && new ByteReader(extended.bytes, 'extended section indexes');
  const reader = new ByteReader(table.bytes, table.name);
  const count = Math.floor(table.bytes.length / symbolSize);
  return Array.from({ length: count }, (_, index) => {
    const nameOffset = reader.u32();
    const info = reader.u8();
    const other = reader.u8();
    let section = reader.u16();
    const value = Number(reader.bigU64());
    const size = Number(reader.bigU64());
    if (section === sectionIndex.extended && extendedReader) {
      extendedReader.position = index * 4;
      section = extendedReader.u32();
    }
    const typeNumber = info & 15;
    const version = versions?.(index);
    return {
      index,
      name: nameOffset === 0 ? '' : stringAt(strings, nameOffset),
      value,
      size,
      binding: symbolBindings[info >> 4] ?? 'other',
      type: typeNumber === gnuIfunc ? 'ifunc' : (symbolTypes[typeNumber] ?? 'other'),
      visibility: other & 3,
      sectionIndex: section,
      version: version?.name ?? '',
      versionIsDefault: version?.isDefault ?? false,
    } satisfies ElfSymbol;
  });
}

/** The entries of a SHT_RELA section. */
export function readRelocations(section: ElfSection): ElfRelocation[] {
  if (section.type !== sectionType.rela) {
    throw new KcareError(
      'ELF_MALFORMED',
      `${section.name} of section ${section.index} holds no RELA entries`,
    );
  }
  const reader = new ByteReader(section.bytes, section.name);
  const count = Math.floor(section.bytes.length / relaSize);
  return Array.from({ length: count }, () => {
    const offset = reader.u64();
    const type = reader.u32();
    const symbolIndex = reader.u32();
    return { offset, type, symbolIndex, addend: Number(reader.bigI64()) };
  });
}

/** The relocations that apply to section number `target` of a relocatable file. */
export function relocationsFor(elf: ElfFile, target: number): ElfRelocation[] {
  return elf.sections
    .filter((section) => section.type === sectionType.rela && section.info === target)
    .flatMap((section) => readRelocations(section));
}

function linkedSection(elf: ElfFile, section: ElfSection): ElfSection {
  const linked = elf.sections[section.link];
  if (!linked || linked.type === sectionType.nobits) {
    throw new KcareError(
      'ELF_MALFORMED',
      `${section.name} links to section ${section.link}, which cannot be`,
    );
  }
  return linked;
}

interface SymbolVersion {
  readonly name: string;
  readonly isDefault: boolean;
}

/** GNU symbol versioning (Linux Standard Base core specification, section "Symbol Versioning"). */
function readVersions(elf: ElfFile): ((symbolIndex: number) => SymbolVersion | undefined) | undefined {
  const indexes = elf.sections.find((section) => section.type === sectionType.gnuVersym);
  if (!indexes) return undefined;
  const names = new Map<number, string>();
  for (const section of elf.sections) {
    if (section.type === sectionType.gnuVerdef) readVersionDefinitions(elf, section, names);
    if (section.type === sectionType.gnuVerneed) readVersionNeeds(elf, section, names);
  }
  const reader = new ByteReader(indexes.bytes, indexes.name);
  return (symbolIndex) => {
    reader.position = symbolIndex * 2;
    const value = reader.u16();
    const name = names.get(value & 0x7fff);
    return name === undefined ? undefined : { name, isDefault: (value & 0x8000) === 0 };
  };
}

/** Walks a chain of records linked by relative offsets; each must lie behind the one before it. */
function walkChain(start: number, count: number, visit: (position: number) => number): void {
  let position = start;
  for (let index = 0; index < count; index++) {
    const next = visit(position);
    if (next === 0) return;
    position += next;
  }
}

function readVersionDefinitions(elf: ElfFile, section: ElfSection, names: Map<number, string>): void {
  const strings = linkedSection(elf, section).bytes;
  const reader = new ByteReader(section.bytes, section.name);
  walkChain(0, section.info, (position) => {
    reader.position = position + 2;
    const flags = reader.u16();
    const index = reader.u16();
    reader.position = position + 12;
    const auxiliary = reader.u32();
    const next = reader.u32();
    reader.position = position + auxiliary;
    // VER_FLG_BASE names the file itself, not a version.
    if ((flags & 1) === 0) names.set(index & 0x7fff, stringAt(strings, reader.u32()));
    return next;
  });
}

function readVersionNeeds(elf: ElfFile, section: ElfSection, names: Map<number, string>): void {
  const strings = linkedSection(elf, section).bytes;
  const reader = new ByteReader(section.bytes, section.name);
  walkChain(0, section.info, (position) => {
    reader.position = position + 2;
    const count = reader.u16();
    reader.position = position + 8;
    const auxiliary = reader.u32();
    const next = reader.u32();
    walkChain(position + auxiliary, count, (auxiliaryPosition) => {
      reader.position = auxiliaryPosition + 6;
      const index = reader.u16();
      const nameOffset = reader.u32();
      names.set(index & 0x7fff, stringAt(strings, nameOffset));
      return reader.u32();
    });
    return next;
  });
}
