// Lays out an ELF file from sections, symbols and relocations.
import { machineX86_64, sectionFlag, sectionType } from '../elf/index.js';
import type { RemoteAddress } from '../base/address.js';

export interface SectionToWrite {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly alignment: number;
  readonly entrySize?: number;
  /** Where it is in memory; 0 in a relocatable file. */
  readonly address?: RemoteAddress;
  readonly bytes: Uint8Array;
  /** Size of a NOBITS section. */
  readonly size?: number;
}

export interface SymbolToWrite {
  readonly name: string;
  /** Section name, or undefined for an undefined symbol. */
  readonly section: string | undefined;
  readonly value: number;
  readonly size: number;
  /** STT_*: 0 none, 1 object, 2 function, 3 section. */
  readonly type: number;
  /** STB_*: 0 local, 1 global. Locals must come first. */
  readonly binding: number;
}

export interface RelocationToWrite {
  readonly section: string;
  readonly offset: number;
  readonly type: number;
  /** Index into the symbols given (the null symbol is not counted). */
  readonly symbol: number;
  readonly addend: number;
}

const headerSize = 64;
const sectionHeaderSize = 64;

export class StringTable {
  readonly #offsets = new Map<string, number>([['', 0]]);
  readonly #chunks: Buffer[] = [Buffer.from([0])];
  #size = 1;

  add(text: string): number {
    const known = this.#offsets.get(text);
    if (known !== undefined) return known;
    const offset = this.#size;
    const chunk = Buffer.from(`${text}\0`, 'latin1');
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    this.#offsets.set(text, offset);
    return offset;
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}

/** A section with all fields of its header. */
export interface SectionWithLinks extends SectionToWrite {
  readonly link: number;
  readonly info: number;
}

/** A symbol as it stands in the table: with the number of its section. */
export interface SymbolRecord extends Omit<SymbolToWrite, 'section'> {
  readonly sectionIndex: number;
  /** STV_*; 0 default. */
  readonly visibility?: number;
}

/** The bytes of the file; `type` is one of the ELF layer's `fileType`. Equal input gives equal bytes. */
export function writeElf(
  type: number,
  sections: readonly SectionToWrite[],
  symbols: readonly SymbolToWrite[],
  relocations: readonly RelocationToWrite[],
): Uint8Array {
  const indexOf = new Map(sections.map((section, index) => [section.name, index + 1]));
  const relocated = sections.filter((section) => relocations.some((entry) => entry.section === section.name));
  const symbolTableIndex = sections.length + relocated.length + 1;
  const strings = new StringTable();
  const symbolTable = encodeSymbols(
    symbols.map(({ section, ...symbol }) => ({
      ...symbol,
      sectionIndex: section === undefined ? 0 : (indexOf.get(section) ?? 0),
    })),
    strings,
  );
  const headers: SectionWithLinks[] = [
    ...sections.map((section) => ({ ...section, link: 0, info: 0 })),
    ...relocated.map((section) => ({
      name: `.rela${section.name}`,
      type: sectionType.rela,
      flags: sectionFlag.infoLink,
      alignment: 8,
      entrySize: 24,
      bytes: encodeRelocations(relocations.filter((entry) => entry.section === section.name)),
      link: symbolTableIndex,
      info: indexOf.get(section.name) ?? 0,
    })),
    {
      name: '.symtab',
      type: sectionType.symtab,
      flags: 0,
      alignment: 8,
      entrySize: 24,
      bytes: symbolTable,
      link: symbolTableIndex + 1,
      info: symbols.filter((symbol) => symbol.binding === 0).length + 1,
    },
    {
      name: '.strtab',
      type: sectionType.strtab,
      flags: 0,
      alignment: 1,
      bytes: strings.bytes(),
      link: 0,
      info: 0,
    },
  ];
  return writeSections(type, headers);
}

/** The bytes of a file of `sections`, the null section and the table of section names added. */
export function writeSections(type: number, sections: readonly SectionWithLinks[]): Uint8Array {
  const names = new StringTable();
  for (const section of sections) names.add(section.name);
  names.add('.shstrtab');
  const nameTable = {
    name: '.shstrtab',
    type: sectionType.strtab,
    flags: 0,
    alignment: 1,
    bytes: names.bytes(),
    link: 0,
    info: 0,
  };
  const headers: SectionWithLinks[] = [...sections, nameTable];
  let position = headerSize;
  const placed = headers.map((header) => {
    position = Math.ceil(position / Math.max(1, header.alignment)) * Math.max(1, header.alignment);
    const offset = position;
    position += header.bytes.length;
    return { header, offset };
  });
  const tableOffset = Math.ceil(position / 8) * 8;
  const file = Buffer.alloc(tableOffset + (headers.length + 1) * sectionHeaderSize);
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]).copy(file);
  file.writeUInt16LE(type, 16);
  file.writeUInt16LE(machineX86_64, 18);
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(tableOffset), 40);
  file.writeUInt16LE(headerSize, 52);
  file.writeUInt16LE(sectionHeaderSize, 58);
  file.writeUInt16LE(headers.length + 1, 60);
  file.writeUInt16LE(headers.length, 62);
  placed.forEach(({ header, offset }, index) => {
    file.set(header.bytes, offset);
    const at = tableOffset + (index + 1) * sectionHeaderSize;
    file.writeUInt32LE(names.add(header.name), at);
    file.writeUInt32LE(header.type, at + 4);
    file.writeBigUInt64LE(BigInt(header.flags), at + 8);
    file.writeBigUInt64LE(header.address ?? 0n, at + 16);
    file.writeBigUInt64LE(BigInt(offset), at + 24);
    file.writeBigUInt64LE(BigInt(header.size ?? header.bytes.length), at + 32);
    file.writeUInt32LE(header.link, at + 40);
    file.writeUInt32LE(header.info, at + 44);
    file.writeBigUInt64LE(BigInt(header.alignment), at + 48);
    file.writeBigUInt64LE(BigInt(header.entrySize ?? 0), at + 56);
  });
  return file;
}

/** The contents of a symbol table, with the null symbol; the names go to `strings`. Locals must come first. */
export function encodeSymbols(symbols: readonly SymbolRecord[], strings: StringTable): Uint8Array {
  const table = Buffer.alloc((symbols.length + 1) * 24);
  symbols.forEach((symbol, index) => {
    const at = (index + 1) * 24;
    table.writeUInt32LE(strings.add(symbol.name), at);
    table.writeUInt8((symbol.binding << 4) | symbol.type, at + 4);
    table.writeUInt8(symbol.visibility ?? 0, at + 5);
    table.writeUInt16LE(symbol.sectionIndex, at + 6);
    table.writeBigUInt64LE(BigInt(symbol.value), at + 8);
    table.writeBigUInt64LE(BigInt(symbol.size), at + 16);
  });
  return table;
}

/** The contents of a RELA section; symbols are counted without the null symbol. */
export function encodeRelocations(relocations: readonly Omit<RelocationToWrite, 'section'>[]): Uint8Array {
  const table = Buffer.alloc(relocations.length * 24);
  relocations.forEach((relocation, index) => {
    table.writeBigUInt64LE(BigInt(relocation.offset), index * 24);
    table.writeUInt32LE(relocation.type, index * 24 + 8);
    table.writeUInt32LE(relocation.symbol + 1, index * 24 + 12);
    table.writeBigInt64LE(BigInt(relocation.addend), index * 24 + 16);
  });
  return table;
}
