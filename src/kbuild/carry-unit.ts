// Takes the changed and new functions of a unit, and all that belongs to them, out of its compiled object.
import {
  parseElf,
  readSymbols,
  relocationsFor,
  relocationType,
  sectionFlag,
  type ElfFile,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';
import { CarriedObject, type Piece } from './carried-object.js';
import type { ChangedUnit, KernelSymbol } from './changed-unit.js';
import { isCold, isPrivateData } from './kernel-object.js';
import { livePatchPlaceholder } from './livepatch-symbols.js';
import { distanceToEnd } from './operand-end.js';
import { specialEntries, specialSections, type SpecialEntry } from './special-sections.js';

/** A function of the kernel, and the symbol of the code that takes its place. */
export interface Replacement {
  readonly name: string;
  readonly position: number;
  readonly symbol: string;
}

export interface CarriedUnit {
  /** A relocatable file; symbols for the kernel to resolve are placeholders (livepatch-symbols.ts). */
  readonly bytes: Uint8Array;
  readonly replacements: readonly Replacement[];
  /** Why the unit cannot be carried; empty: it can. */
  readonly refusals: readonly string[];
}

/** `number` tells the units of a module apart. Throws ELF_MALFORMED. */
export function carryUnit(unit: ChangedUnit, changed: Uint8Array, number: number): CarriedUnit {
  const carrier = new Carrier(unit, changed, number);
  carrier.run();
  return {
    bytes: carrier.object.bytes(),
    replacements: carrier.replacements,
    refusals: [...carrier.refusals],
  };
}

const relativeTypes: ReadonlySet<number> = new Set([
  relocationType.pc32,
  relocationType.plt32,
  relocationType.pc64,
]);
const supportedTypes: ReadonlySet<number> = new Set([
  ...relativeTypes,
  relocationType.none,
  relocationType.abs64,
  relocationType.abs32,
  relocationType.abs32Signed,
]);

class Carrier {
  readonly object = new CarriedObject();
  readonly refusals = new Set<string>();
  readonly replacements: Replacement[] = [];
  readonly #elf: ElfFile;
  readonly #symbols: readonly ElfSymbol[];
  readonly #entries: readonly SpecialEntry[];
  readonly #carried: ReadonlySet<string>;
  readonly #data: ReadonlySet<string>;
  readonly #queue: Piece[] = [];
  readonly #seen = new Set<Piece>();
  /** Where the pieces of .altinstr_aux begin. */
  #slowPaths: readonly number[] | undefined;

  constructor(
    private readonly unit: ChangedUnit,
    changed: Uint8Array,
    private readonly number: number,
  ) {
    this.#elf = parseElf(changed);
    this.#symbols = readSymbols(this.#elf, '.symtab');
    this.#entries = specialEntries(this.#elf, this.#symbols);
    this.#carried = new Set([...unit.changedFunctions, ...unit.newFunctions]);
    this.#data = new Set(unit.newData);
  }

  run(): void {
    for (const name of this.#carried) this.#addFunction(name);
    for (const name of this.#data) this.#addDatum(name);
    for (let piece = this.#queue.shift(); piece; piece = this.#queue.shift()) this.#finish(piece);
  }

  #refuse(why: string): void {
    this.refusals.add(`${this.unit.source}: ${why}`);
  }

  #section(index: number): ElfSection | undefined {
    const section = this.#elf.sections[index];
    return section?.type === 0 ? undefined : section;
  }

  #defined(name: string): ElfSymbol | undefined {
    return this.#symbols.find((symbol) => symbol.name === name && this.#section(symbol.sectionIndex));
  }

  #addFunction(name: string): void {
    const symbol = this.#defined(name);
    const section = symbol && this.#section(symbol.sectionIndex);
    if (symbol?.type !== 'function' || !section) {
      this.#refuse(`${name} is not a function of the changed object`);
      return;
    }
    const strangers = this.#symbols.filter(
      (other) =>
        other.sectionIndex === section.index &&
        other.type === 'function' &&
        (other.value !== symbol.value || symbol.value !== 0),
    );
    if (/^\.(?:init|exit)/.test(section.name)) {
      this.#refuse(`${name} runs only while the kernel starts or ends (${section.name})`);
      return;
    }
    if (strangers.length > 0) {
      this.#refuse(`${name} shares its section ${section.name} with other functions`);
      return;
    }
    const piece = this.#add(section, 0, section.bytes.length, section.alignment);
    if (!this.unit.changedFunctions.includes(name)) {
      this.object.define(name, 'function', piece, symbol.value, symbol.size);
      return;
    }
    const replacement = `kcare.replacement.${this.number}.${this.replacements.length}.${name}`;
    this.object.defineGlobal(replacement, 'function', piece, symbol.value, symbol.size);
    const known = this.unit.symbols.get(name);
    this.replacements.push({
      ...{ name: known?.name ?? name, position: known?.position ?? 0 },
      symbol: replacement,
    });
  }

  #addDatum(name: string): void {
    const symbol = this.#defined(name);
    const section = symbol && this.#section(symbol.sectionIndex);
    if (!symbol || !section) this.#refuse(`${name} is not in the changed object`);
    else if (section.name.startsWith('.data..percpu')) this.#refuse(`${name} is new data of each processor`);
    else this.#carryDatum(symbol, section);
  }

  #carryDatum(symbol: ElfSymbol, section: ElfSection): Piece {
    const known = this.object.pieceAt(section, symbol.value);
    if (known && symbol.value < known.end) return known;
    const piece = this.#add(section, symbol.value, symbol.value + symbol.size, section.alignment);
    this.object.define(symbol.name, 'object', piece, symbol.value, symbol.size);
    return piece;
  }

  #add(section: ElfSection, start: number, end: number, alignment: number): Piece {
    const piece = this.object.add(section, start, end, Math.max(1, alignment));
    if (!this.#seen.has(piece)) {
      this.#seen.add(piece);
      this.#queue.push(piece);
    }
    return piece;
  }

  /** Translates the relocations of a piece and, if it is code, takes its entries of the special sections along. */
  #finish(piece: Piece): void {
    for (const relocation of relocationsFor(this.#elf, piece.source.index))
      if (relocation.offset >= piece.start && relocation.offset < piece.end)
        this.#translate(piece, relocation);
    if ((piece.source.flags & sectionFlag.execute) === 0) return;
    for (const entry of this.#entries) if (entry.codeSection === piece.source.index) this.#carryEntry(entry);
  }

  #carryEntry({ section, start, end, parallel, replacement }: SpecialEntry): void {
    // The replacement first: the entry refers to it.
    if (replacement) this.#add(replacement.section, replacement.start, replacement.end, 1);
    this.#add(section, start, end, section.alignment);
    if (parallel) this.#add(parallel.section, parallel.start, parallel.end, 1);
  }

  #translate(piece: Piece, relocation: ElfRelocation): void {
    const { offset, type, addend } = relocation;
    const symbol = this.#symbols[relocation.symbolIndex];
    if (!supportedTypes.has(type)) this.#refuse(`a relocation of type ${type} in ${piece.source.name}`);
    if (type === relocationType.none || !symbol) return;
    const section = this.#section(symbol.sectionIndex);
    if (!section) this.#outside(piece, relocation, symbol.name, addend);
    else if ((section.flags & sectionFlag.execute) !== 0) this.#toCode(piece, relocation, symbol, section);
    else this.#toData(piece, relocation, symbol, section, offset);
  }

  /** Offset in its section that a relocation is about: in code, relative ones count from the end of the instruction. */
  #place({ type, addend, offset }: ElfRelocation, symbol: ElfSymbol, source: ElfSection): number {
    const isRelative = (source.flags & sectionFlag.execute) !== 0 && relativeTypes.has(type);
    return symbol.value + addend + (isRelative ? distanceToEnd(source.bytes, offset) : 0);
  }

  /** The piece of code outside of functions that begins at `place`: it goes on until something refers to the next one. */
  #slowPath(section: ElfSection, place: number): Piece {
    this.#slowPaths ??= this.#placesIn(section);
    const end = this.#slowPaths.find((other) => other > place) ?? section.bytes.length;
    return this.#add(section, place, end, 1);
  }

  #placesIn(section: ElfSection): number[] {
    const places = this.#elf.sections.flatMap((source) =>
      relocationsFor(this.#elf, source.index).flatMap((relocation) => {
        const symbol = this.#symbols[relocation.symbolIndex];
        return symbol?.sectionIndex === section.index ? [this.#place(relocation, symbol, source)] : [];
      }),
    );
    return [...new Set(places)].sort((a, b) => a - b);
  }

  #toCode(piece: Piece, relocation: ElfRelocation, symbol: ElfSymbol, section: ElfSection): void {
    const { offset, type, addend } = relocation;
    const place = this.#place(relocation, symbol, piece.source);
    if (section.name === '.altinstr_aux') {
      const added = this.#slowPath(section, place);
      this.object.referInside(piece, offset, type, added, symbol.value + addend);
      return;
    }
    const known = this.object.pieceAt(section, place);
    const owner = this.#functionAt(section, place);
    const isSpecial = specialSections[piece.source.name] !== undefined || section === piece.source;
    // An address that is kept must be that of the kernel's own function: it outlives this module.
    const isKept = !isSpecial && !relativeTypes.has(type) && this.unit.symbols.has(owner?.name ?? '');
    if (known && !isKept) {
      this.object.referInside(piece, offset, type, known, symbol.value + addend);
      return;
    }
    if (owner && (this.#carried.has(owner.name) || isCold(owner.name)) && !isKept) {
      if (!this.#carried.has(owner.name)) this.#addFunction(owner.name);
      const added = this.object.pieceAt(section, place);
      if (added) this.object.referInside(piece, offset, type, added, symbol.value + addend);
      return;
    }
    if (owner) this.#outside(piece, relocation, owner.name, symbol.value + addend - owner.value);
    else this.#refuse(`${piece.source.name} refers to code without a name in ${section.name}`);
  }

  #functionAt(section: ElfSection, place: number): ElfSymbol | undefined {
    const all = this.#symbols.filter(
      ({ sectionIndex, type }) => sectionIndex === section.index && type === 'function',
    );
    return (
      all.find(({ value, size }) => place >= value && place < value + size) ??
      all.find(({ value, size }) => place === value + size)
    );
  }

  #toData(
    piece: Piece,
    relocation: ElfRelocation,
    symbol: ElfSymbol,
    section: ElfSection,
    offset: number,
  ): void {
    const { type, addend } = relocation;
    const place = this.#place(relocation, symbol, piece.source);
    const datum = this.#datumAt(section, place, symbol);
    if (datum && this.unit.symbols.has(datum.name)) {
      this.#outside(piece, relocation, datum.name, symbol.value + addend - datum.value);
      return;
    }
    const isReadOnly = (section.flags & sectionFlag.write) === 0;
    if (isJumpKey(piece, offset) && datum && section.name !== '__dyndbg') {
      this.#refuse(`the static key ${datum.name} is new or changed`);
      return;
    }
    let target: Piece | undefined;
    if (datum && (this.#data.has(datum.name) || isPrivateData(section)))
      target = this.#carryDatum(datum, section);
    else if (isReadOnly) target = this.#add(section, 0, section.bytes.length, section.alignment);
    if (target) this.object.referInside(piece, offset, type, target, symbol.value + addend);
    else
      this.#refuse(
        `${piece.source.name} needs ${datum?.name ?? `data in ${section.name}`}, and it is not known where that is`,
      );
  }

  #datumAt(section: ElfSection, place: number, symbol: ElfSymbol): ElfSymbol | undefined {
    if (symbol.type === 'object') return symbol;
    const all = this.#symbols.filter(
      ({ sectionIndex, type }) => sectionIndex === section.index && type === 'object',
    );
    return (
      all.find(({ value, size }) => place >= value && place < value + Math.max(size, 1)) ??
      // Code also computes addresses around a table, such as the one before its first entry.
      (all.length === 1 ? all[0] : undefined)
    );
  }

  /** A reference to a symbol of the running kernel. */
  #outside(piece: Piece, { offset, type }: ElfRelocation, name: string, addend: number): void {
    const known = this.unit.symbols.get(name);
    if (!known) {
      this.#refuse(`${piece.source.name} needs ${name}, and it is not known where that is`);
      return;
    }
    const { module } = this.unit;
    if (known.owner !== 'vmlinux' && module === undefined)
      this.#refuse(`the kernel's own code needs ${name} of module ${known.owner}`);
    if (known.owner !== 'vmlinux' && (specialSections[piece.source.name] || isReplacement(piece)))
      // The kernel works these sections off before it resolves the symbols of modules.
      this.#refuse(`${piece.source.name} needs ${name} of module ${known.owner}`);
    this.object.referOutside(piece, offset, type, this.#outsideName(name, known), addend);
  }

  #outsideName(name: string, symbol: KernelSymbol): string {
    if (symbol.isExported && symbol.owner === 'vmlinux') return name;
    const patched = symbol.owner === 'vmlinux' ? 'vmlinux' : (this.unit.module ?? 'vmlinux');
    return livePatchPlaceholder({
      patched,
      owner: symbol.owner,
      name: symbol.name ?? name,
      position: symbol.position,
    });
  }
}

const isReplacement = (piece: Piece): boolean => piece.source.name === '.altinstr_replacement';

/** struct jump_entry: the key comes at 8, behind the code and its target. */
const isJumpKey = (piece: Piece, offset: number): boolean =>
  piece.source.name === '__jump_table' && (offset - piece.start) % 16 === 8;
