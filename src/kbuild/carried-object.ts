// The object that holds what a livepatch module carries of one unit: pieces of the compiled object's sections, laid out anew.
import { fileType, sectionFlag, sectionType, type ElfSection } from '../elf/index.js';
import {
  encodeRelocations,
  encodeSymbols,
  StringTable,
  writeSections,
  type SectionWithLinks,
} from '../patchfile/index.js';

/** A range of a section of the compiled object, and where it went. */
export interface Piece {
  readonly source: ElfSection;
  readonly start: number;
  readonly end: number;
  readonly target: CarriedSection;
  /** Offset in `target` of `start`. */
  readonly offset: number;
}

export interface CarriedSection {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly entrySize: number;
  alignment: number;
  readonly chunks: Uint8Array[];
  size: number;
}

interface CarriedSymbol {
  readonly name: string;
  readonly section?: CarriedSection;
  readonly value: number;
  readonly size: number;
  readonly type: number;
  readonly isGlobal: boolean;
}

interface CarriedRelocation {
  readonly section: CarriedSection;
  readonly offset: number;
  readonly type: number;
  readonly addend: number;
  readonly symbol: CarriedSymbol | CarriedSection;
}

const symbolKind = { none: 0, object: 1, function: 2, section: 3 } as const;

export class CarriedObject {
  readonly #sections = new Map<string, CarriedSection>();
  readonly #pieces = new Map<number, Piece[]>();
  readonly #symbols: CarriedSymbol[] = [];
  readonly #undefined = new Map<string, CarriedSymbol>();
  readonly #relocations: CarriedRelocation[] = [];

  /** Takes bytes `start` to `end` of `source` along; the same range again is the same piece. */
  add(source: ElfSection, start: number, end: number, alignment: number): Piece {
    const known = this.#pieces.get(source.index)?.find((piece) => piece.start === start && piece.end === end);
    if (known) return known;
    const target = this.#sectionFor(source);
    target.alignment = Math.max(target.alignment, alignment);
    const offset = Math.ceil(target.size / alignment) * alignment;
    if (target.type !== sectionType.nobits) {
      if (offset > target.size) target.chunks.push(new Uint8Array(offset - target.size));
      target.chunks.push(Uint8Array.from(source.bytes.subarray(start, end)));
    }
    target.size = offset + end - start;
    const piece = { source, start, end, target, offset };
    this.#pieces.set(source.index, [...(this.#pieces.get(source.index) ?? []), piece]);
    return piece;
  }

  /** The piece that holds `offset` of `source`; its end counts, as addresses behind the last instruction are used. */
  pieceAt(source: ElfSection, offset: number): Piece | undefined {
    const pieces = this.#pieces.get(source.index) ?? [];
    return (
      pieces.find((piece) => offset >= piece.start && offset < piece.end) ??
      pieces.find((piece) => offset === piece.end)
    );
  }

  #sectionFor(source: ElfSection): CarriedSection {
    const known = this.#sections.get(source.name);
    if (known) return known;
    const { alloc, write, execute } = sectionFlag;
    const section = {
      name: source.name,
      type: source.type,
      // Merging is over: references count from the beginning of the section.
      flags: source.flags & (alloc | write | execute),
      entrySize: 0,
      alignment: 1,
      chunks: [],
      size: 0,
    };
    this.#sections.set(source.name, section);
    return section;
  }

  define(name: string, kind: 'function' | 'object', piece: Piece, value: number, size: number): void {
    this.#define(name, kind, piece, value, size, false);
  }

  /** Visible to the other objects of the module. */
  defineGlobal(name: string, kind: 'function' | 'object', piece: Piece, value: number, size: number): void {
    this.#define(name, kind, piece, value, size, true);
  }

  #define(
    name: string,
    kind: 'function' | 'object',
    piece: Piece,
    value: number,
    size: number,
    isGlobal: boolean,
  ): void {
    const { target, offset, start } = piece;
    const type = symbolKind[kind];
    this.#symbols.push({ name, section: target, value: offset + value - start, size, type, isGlobal });
  }

  /** A relocation at `at` of `piece` to a symbol that this object lacks. */
  referOutside(piece: Piece, at: number, type: number, name: string, addend: number): void {
    let symbol = this.#undefined.get(name);
    if (!symbol) {
      symbol = { name, value: 0, size: 0, type: symbolKind.none, isGlobal: true };
      this.#undefined.set(name, symbol);
    }
    this.#refer(piece, at, type, symbol, addend);
  }

  /** A relocation at `at` of `piece` to `addend` behind the start of what `to` is a piece of. */
  referInside(piece: Piece, at: number, type: number, to: Piece, addend: number): void {
    this.#refer(piece, at, type, to.target, to.offset - to.start + addend);
  }

  #refer(piece: Piece, at: number, type: number, symbol: CarriedRelocation['symbol'], addend: number): void {
    const offset = piece.offset + at - piece.start;
    this.#relocations.push({ section: piece.target, offset, type, addend, symbol });
  }

  /** The relocatable file. */
  bytes(): Uint8Array {
    const sections = [...this.#sections.values()];
    const indexOf = new Map(sections.map((section, index) => [section, index + 1]));
    const sectionSymbols = sections.map((section) => ({
      ...{ name: '', value: 0, size: 0, type: symbolKind.section, isGlobal: false },
      section,
    }));
    const all: readonly CarriedSymbol[] = [...sectionSymbols, ...this.#symbols, ...this.#undefined.values()];
    const symbols = [...all.filter((s) => !s.isGlobal), ...all.filter((s) => s.isGlobal)];
    const numbers = new Map<CarriedSymbol | CarriedSection, number>();
    symbols.forEach((symbol, index) => numbers.set(symbol, index));
    sections.forEach((section, index) => numbers.set(section, index));
    const relocated = sections.filter((section) => this.#relocations.some((r) => r.section === section));
    const symbolTable = sections.length + relocated.length + 1;
    const strings = new StringTable();
    const records = symbols.map(({ section, isGlobal, ...symbol }) => ({
      ...symbol,
      binding: isGlobal ? 1 : 0,
      sectionIndex: section === undefined ? 0 : (indexOf.get(section) ?? 0),
    }));
    const headers: SectionWithLinks[] = [
      ...sections.map(({ chunks, ...section }) => ({
        ...section,
        bytes: Buffer.concat(chunks),
        link: 0,
        info: 0,
      })),
      ...relocated.map((section) => ({
        ...{ name: `.rela${section.name}`, type: sectionType.rela, flags: sectionFlag.infoLink },
        ...{ alignment: 8, entrySize: 24, link: symbolTable, info: indexOf.get(section) ?? 0 },
        bytes: encodeRelocations(
          this.#relocations
            .filter((relocation) => relocation.section === section)
            .sort((a, b) => a.offset - b.offset)
            .map(({ symbol, ...rest }) => ({ ...rest, symbol: numbers.get(symbol) ?? 0 })),
        ),
      })),
      {
        ...{ name: '.symtab', type: sectionType.symtab, flags: 0, alignment: 8, entrySize: 24 },
        ...{ link: symbolTable + 1, info: symbols.filter((s) => !s.isGlobal).length + 1 },
        bytes: encodeSymbols(records, strings),
      },
      { ...stringSection, bytes: strings.bytes() },
    ];
    return writeSections(fileType.relocatable, headers);
  }
}

const stringSection = {
  ...{ name: '.strtab', type: sectionType.strtab, flags: 0, alignment: 1 },
  ...{ link: 0, info: 0 },
};
