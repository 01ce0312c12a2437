// A compiled object as the build sees it: functions with their relocations, and what each relocation means.
import { createHash } from 'node:crypto';
import {
  parseElf,
  readSymbols,
  relocationsFor,
  relocationType,
  sectionFlag,
  sectionIndex,
  sectionType,
  type ElfFile,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';

export interface ObjectFunction {
  readonly name: string;
  /** Name without the numbers that the compiler gives to clones and local statics. */
  readonly base: string;
  readonly symbol: ElfSymbol;
  readonly section: ElfSection;
  /** Offset in the section. */
  readonly offset: number;
  readonly size: number;
  readonly bytes: Uint8Array;
  /** Relocations inside, with offsets relative to the function. */
  readonly relocations: readonly ElfRelocation[];
}

/** What a relocation refers to, before it is decided where that lives. */
export type Reference =
  /** A symbol of another translation unit or object. */
  | { readonly kind: 'external'; readonly name: string }
  /** A place in a code section of this unit. */
  | {
      readonly kind: 'code';
      readonly section: ElfSection;
      readonly offset: number;
      readonly symbol: ElfSymbol;
    }
  /** A datum of this unit: a place in a section that is not code. */
  | {
      readonly kind: 'data';
      readonly section: ElfSection;
      readonly offset: number;
      readonly symbol: ElfSymbol;
    }
  /** A string or constant in a section that the linker merges. */
  | { readonly kind: 'constant'; readonly bytes: Uint8Array; readonly alignment: number };

/** A relocation with the addend that remains after the reference itself is taken out. */
export interface ResolvedReference {
  readonly reference: Reference;
  readonly addend: number;
}

export const baseName = (name: string): string => name.replace(/\.\d+(?=\.|$)/g, '');

const pcRelative: ReadonlySet<number> = new Set([
  relocationType.pc32,
  relocationType.plt32,
  relocationType.gotPcRel,
  relocationType.gotPcRelX,
  relocationType.rexGotPcRelX,
  relocationType.gotTpOff,
]);

export class CodeObject {
  readonly elf: ElfFile;
  readonly symbols: readonly ElfSymbol[];
  readonly functions: readonly ObjectFunction[];
  private readonly relocationsOf = new Map<number, readonly ElfRelocation[]>();

  constructor(bytes: Uint8Array) {
    this.elf = parseElf(bytes);
    this.symbols = readSymbols(this.elf, '.symtab');
    this.functions = this.symbols
      .filter((symbol) => symbol.type === 'function' && symbol.sectionIndex !== 0)
      .flatMap((symbol) => this.toFunction(symbol) ?? []);
  }

  relocations(section: ElfSection): readonly ElfRelocation[] {
    let relocations = this.relocationsOf.get(section.index);
    if (!relocations) {
      relocations = relocationsFor(this.elf, section.index);
      this.relocationsOf.set(section.index, relocations);
    }
    return relocations;
  }

  private toFunction(symbol: ElfSymbol): ObjectFunction | undefined {
    const section = this.elf.sections[symbol.sectionIndex];
    if (!section) return undefined;
    const { value: offset, size } = symbol;
    return {
      name: symbol.name,
      base: baseName(symbol.name),
      symbol,
      section,
      offset,
      size,
      bytes: section.bytes.subarray(offset, offset + size),
      relocations: this.relocations(section)
        .filter((relocation) => relocation.offset >= offset && relocation.offset < offset + size)
        .map((relocation) => ({ ...relocation, offset: relocation.offset - offset })),
    };
  }

  /** The function that covers `offset` of `section`. */
  functionAt(section: ElfSection, offset: number): ObjectFunction | undefined {
    return this.functions.find(
      (candidate) =>
        candidate.section.index === section.index &&
        offset >= candidate.offset &&
        offset < candidate.offset + Math.max(candidate.size, 1),
    );
  }

  /**
   * What `relocation` refers to. References to code and data keep the symbol's own offset apart from the addend:
   * the addend of a PC-relative one also counts the bytes up to the end of its instruction, which we do not decode.
   */
  resolve(relocation: ElfRelocation): ResolvedReference {
    const symbol = this.symbols[relocation.symbolIndex];
    const section = symbol && this.elf.sections[symbol.sectionIndex];
    if (!symbol || !section || symbol.sectionIndex === sectionIndex.undefined) {
      return { reference: { kind: 'external', name: symbol?.name ?? '' }, addend: relocation.addend };
    }
    const { addend } = relocation;
    if ((section.flags & sectionFlag.merge) !== 0) {
      const isSection = symbol.type === 'section';
      const distanceToEnd = pcRelative.has(relocation.type) ? 4 : 0;
      const start = isSection ? addend + distanceToEnd : symbol.value;
      const reference = {
        kind: 'constant',
        bytes: constantAt(section, start),
        alignment: section.alignment,
      } as const;
      return { reference, addend: isSection ? -distanceToEnd : addend };
    }
    if ((section.flags & sectionFlag.execute) !== 0) {
      return { reference: { kind: 'code', section, offset: symbol.value, symbol }, addend };
    }
    return { reference: { kind: 'data', section, offset: symbol.value, symbol }, addend };
  }

  /** A text that is equal for references to the same thing in two compiles of the same unit. */
  identity(relocation: ElfRelocation): string {
    const { reference, addend } = this.resolve(relocation);
    const place = `${relocation.type} ${addend}`;
    switch (reference.kind) {
      case 'external':
        return `${place} external ${reference.name}`;
      case 'constant':
        return `${place} constant ${digest(reference.bytes)}`;
      case 'code':
        return `${place} code ${this.sectionIdentity(reference.section)}+${reference.offset}`;
      case 'data': {
        const content = isReadOnly(reference.section) ? this.contentIdentity(reference.section) : '';
        return `${place} data ${this.sectionIdentity(reference.section)}+${reference.offset} ${content}`;
      }
    }
  }

  /** {@link identity} for a relocation of `part`, whose offset counts from the begin of the function. */
  identityIn(_part: ObjectFunction, relocation: ElfRelocation): string {
    return this.identity(relocation);
  }

  /** What tables of the object say about places in a function, as {@link identity} does; kinds of objects have more. */
  readonly attachments: (part: ObjectFunction) => string = () => '';

  sectionIdentity(section: ElfSection): string {
    return baseName(section.name);
  }

  /** Contents and relocations of a data section, one level deep. */
  contentIdentity(section: ElfSection): string {
    const relocations = this.relocations(section).map((relocation) => {
      const symbol = this.symbols[relocation.symbolIndex];
      const target = symbol && this.elf.sections[symbol.sectionIndex];
      const merged = target && (target.flags & sectionFlag.merge) !== 0;
      const name = merged
        ? Buffer.from(
            constantAt(target, symbol.type === 'section' ? relocation.addend : symbol.value),
          ).toString('latin1')
        : baseName((symbol?.type === 'section' ? target?.name : symbol?.name) ?? '');
      return [relocation.offset, relocation.type, merged ? 0 : relocation.addend, name];
    });
    return digest(Buffer.concat([section.bytes, Buffer.from(JSON.stringify([section.size, relocations]))]));
  }
}

export function isReadOnly(section: ElfSection): boolean {
  return (section.flags & sectionFlag.write) === 0;
}

export function isDataSection(section: ElfSection): boolean {
  return (
    (section.flags & sectionFlag.alloc) !== 0 &&
    (section.flags & (sectionFlag.execute | sectionFlag.merge)) === 0 &&
    (section.type === sectionType.progbits || section.type === sectionType.nobits) &&
    section.name !== '.eh_frame'
  );
}

function constantAt(section: ElfSection, start: number): Uint8Array {
  if ((section.flags & sectionFlag.strings) === 0)
    return section.bytes.subarray(start, start + section.entrySize);
  const width = Math.max(section.entrySize, 1);
  let end = start;
  while (end < section.bytes.length && section.bytes.subarray(end, end + width).some((byte) => byte !== 0))
    end += width;
  return section.bytes.subarray(start, end + width);
}

export function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
