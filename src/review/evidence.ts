// What the shipped object, and debug files of its build, say about addresses and names.
import type { ShippedObject } from '../build/index.js';
import {
  findSection,
  parseEhFrame,
  readLinkage,
  readRelocations,
  readSymbols,
  relocationType,
  sectionFlag,
  sectionType,
  segmentType,
  type ElfFile,
  type ElfSymbol,
} from '../elf/index.js';

interface TableEntry {
  readonly address: number;
  readonly size: number;
  readonly table: string;
}

const executable = 1;

/** What the loader puts into a slot. */
export interface Fixup {
  /** The symbol whose address it is; undefined for a place of the object itself. */
  readonly symbol: ElfSymbol | undefined;
  /** That place: of the thing itself, or of the resolver that tells. 0 where a symbol decides. */
  readonly target: number;
}

/** Tables of one object, indexed for questions about single places. */
export class Evidence {
  private readonly byName = new Map<string, TableEntry[]>();
  /** A table also lists functions that are not exported, so that one that it lacks is not there. */
  readonly knowsStatics: boolean;

  /** Starts of unwind entries whose code is come to with a frame that was built elsewhere. */
  private readonly entered: ReadonlySet<number>;
  /** Slots that the loader fills, by their addresses. */
  readonly fixups: ReadonlyMap<number, Fixup>;

  constructor(
    readonly shipped: ShippedObject,
    debug: readonly ElfFile[] = [],
  ) {
    this.addTable(shipped.elf, '.dynsym', 'the dynamic symbol table');
    const own = this.addTable(shipped.elf, '.symtab', 'the symbol table');
    const separate = debug.map((elf) => this.addTable(elf, '.symtab', 'the debug file'));
    const frames = findSection(shipped.elf, '.eh_frame');
    this.entered = new Set(
      frames
        ? parseEhFrame(frames.bytes, frames.address)
            .filter(({ instructions }) => beginsWithinFrame(instructions))
            .map(({ start }) => start)
        : [],
    );
    this.fixups = readFixups(shipped.elf);
    this.knowsStatics = [own, ...separate].some((count) => count > 0);
  }

  private addTable(elf: ElfFile, name: '.symtab' | '.dynsym', table: string): number {
    const symbols = readSymbols(elf, name).filter(
      ({ sectionIndex, type }) =>
        sectionIndex !== 0 && ['function', 'object', 'ifunc', 'none'].includes(type),
    );
    for (const { name: symbol, value: address, size } of symbols) {
      const known = this.byName.get(symbol) ?? [];
      known.push({ address, size, table });
      this.byName.set(symbol, known);
    }
    return symbols.length;
  }

  /** Where tables have a symbol of this name; several where static ones share it. */
  named(name: string): readonly TableEntry[] {
    return this.byName.get(name) ?? [];
  }

  /** The unwind entry that covers `address`. */
  frameAround(address: number): { readonly start: number; readonly length: number } | undefined {
    const frames = this.sortedFrames;
    let [low, high] = [0, frames.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((frames[middle]?.[0] ?? Infinity) <= address) low = middle + 1;
      else high = middle;
    }
    const [start, length] = frames[low - 1] ?? [0, 0];
    return address >= start && address < start + length ? { start, length } : undefined;
  }

  /** Whether the code at the start of an unwind entry can be called: nothing is on the stack but the return address. */
  isEntry(address: number): boolean {
    return !this.entered.has(address);
  }

  private frameList: readonly (readonly [number, number])[] | undefined;

  private get sortedFrames(): readonly (readonly [number, number])[] {
    return (this.frameList ??= [...this.shipped.frames].sort(([left], [right]) => left - right));
  }

  /** Whether the file has bytes for all of this range, to be run. */
  isCode(address: number, size: number): boolean {
    return this.shipped.elf.segments.some(
      (segment) =>
        segment.type === segmentType.load &&
        (segment.flags & executable) !== 0 &&
        address >= segment.address &&
        address + size <= segment.address + segment.fileSize,
    );
  }

  /** Name of the section in memory that holds `address`. */
  sectionAt(address: number): string | undefined {
    return this.shipped.elf.sections.find(
      ({ flags, address: start, size }) =>
        (flags & sectionFlag.alloc) !== 0 && address >= start && address < start + size,
    )?.name;
  }

  /** Half-open range of the object's memory in which `address` lies. */
  segmentAround(address: number): readonly [number, number] | undefined {
    const found = this.shipped.elf.segments.find(
      ({ type, address: start, memorySize }) =>
        type === segmentType.load && address >= start && address <= start + memorySize,
    );
    return found && [found.address, found.address + found.memorySize];
  }
}

function readFixups(elf: ElfFile): Map<number, Fixup> {
  const fixups = new Map<number, Fixup>();
  for (const section of elf.sections) {
    if (section.type !== sectionType.rela || section.address === 0) continue;
    for (const { type, offset, addend } of readRelocations(section)) {
      if (type === relocationType.relative) fixups.set(offset, { symbol: undefined, target: addend });
    }
  }
  const { slots, indirect } = readLinkage(elf);
  for (const { address, resolver } of indirect) fixups.set(address, { symbol: undefined, target: resolver });
  for (const { address, symbol } of slots) fixups.set(address, { symbol, target: 0 });
  return fixups;
}

/** DWARF 5, section 7.24: the first rule that is not about a later address moves the frame or saves a register. */
function beginsWithinFrame([first = 0]: Uint8Array): boolean {
  const isDefinition = first >= 0x0c && first <= 0x0f;
  return isDefinition || first >> 6 === 2;
}
