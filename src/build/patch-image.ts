// Collects sections, symbols and relocations of a patch while units are linked into it.
import { KcareError } from '../base/errors.js';
import { relocationType } from '../elf/index.js';
import type {
  PatchRelocation,
  PatchRelocationType,
  PatchSection,
  PatchSectionName,
  PatchSymbol,
} from '../patchfile/index.js';

/** A place that a relocation can refer to: a symbol of the patch and a distance from it. */
export interface Place {
  readonly symbol: number;
  readonly offset: number;
}

const writtenOrder = ['.text', '.rodata', '.data', '.bss', '.eh_frame', '.kcare.got'] as const;

/** More than vectors need; readers of patches accept no more. */
const largestAlignment = 64;

class SectionBuilder {
  private chunks: Uint8Array[] = [];
  size = 0;
  alignment = 1;

  constructor(private readonly fill: number) {}

  append(bytes: Uint8Array, wanted: number): number {
    const alignment = Math.max(wanted, 1);
    if (alignment > largestAlignment || !Number.isInteger(Math.log2(alignment)))
      throw new KcareError('ELF_UNSUPPORTED', `an alignment of ${alignment} bytes cannot be kept in a patch`);
    this.alignment = Math.max(this.alignment, alignment);
    const padding = (alignment - (this.size % alignment)) % alignment;
    this.chunks.push(new Uint8Array(padding).fill(this.fill), bytes);
    const offset = this.size + padding;
    this.size = offset + bytes.length;
    return offset;
  }

  get bytes(): Uint8Array {
    return Buffer.concat(this.chunks);
  }
}

export class PatchImage {
  private readonly builders = new Map<PatchSectionName, SectionBuilder>();
  private readonly symbolIndexes = new Map<string, number>();
  private readonly constants = new Map<string, Place>();
  private readonly slots = new Map<number, Place>();
  private readonly stubs = new Map<number, Place>();
  private readonly threadSlots = new Map<string, Place>();
  readonly symbols: PatchSymbol[] = [];
  readonly relocations: PatchRelocation[] = [];

  /** Appends `bytes` and returns their offset. Padding in code is int3. */
  append(section: PatchSectionName, bytes: Uint8Array, alignment: number): number {
    let builder = this.builders.get(section);
    if (!builder) {
      builder = new SectionBuilder(section === '.text' ? 0xcc : 0);
      this.builders.set(section, builder);
    }
    return builder.append(bytes, alignment);
  }

  addSymbol(symbol: PatchSymbol): number {
    const key = JSON.stringify(symbol);
    const known = this.symbolIndexes.get(key);
    if (known !== undefined) return known;
    const index = this.symbols.push(symbol) - 1;
    this.symbolIndexes.set(key, index);
    return index;
  }

  objectSymbol(name: string, address: number, size: number, isFunction: boolean): Place {
    return { symbol: this.addSymbol({ name, where: 'object', value: address, size, isFunction }), offset: 0 };
  }

  patchSymbol(
    name: string,
    section: PatchSectionName,
    value: number,
    size: number,
    isFunction: boolean,
  ): Place {
    return { symbol: this.addSymbol({ name, where: 'patch', section, value, size, isFunction }), offset: 0 };
  }

  relocate(
    section: PatchSectionName,
    offset: number,
    type: PatchRelocationType,
    place: Place,
    addend: number,
  ): void {
    this.relocations.push({ section, offset, type, symbol: place.symbol, addend: place.offset + addend });
  }

  /** A place in .rodata that holds `bytes`; equal constants are stored once. */
  constant(bytes: Uint8Array, alignment: number): Place {
    const key = `${alignment} ${Buffer.from(bytes).toString('latin1')}`;
    let place = this.constants.get(key);
    if (!place) {
      const offset = this.append('.rodata', bytes, alignment);
      place = this.patchSymbol(`.Lconstant${this.constants.size}`, '.rodata', offset, bytes.length, false);
      this.constants.set(key, place);
    }
    return place;
  }

  /** A slot of the patch's own table that will hold the address of `target`. */
  slot(target: Place): Place {
    let place = this.slots.get(target.symbol);
    if (!place) {
      const offset = this.append('.kcare.got', new Uint8Array(8), 8);
      this.relocate('.kcare.got', offset, relocationType.abs64, target, 0);
      place = this.patchSymbol(`${this.nameOf(target)}.slot`, '.kcare.got', offset, 8, false);
      this.slots.set(target.symbol, place);
    }
    return place;
  }

  /** A slot of the patch for thread-local data: constants, and words that are read from the process. */
  threadSlot(name: string, words: readonly { readonly copy?: Place; readonly value: number }[]): Place {
    let place = this.threadSlots.get(name);
    if (!place) {
      const bytes = Buffer.alloc(words.length * 8);
      words.forEach(({ copy, value }, index) => {
        if (!copy) bytes.writeBigInt64LE(BigInt(value), index * 8);
      });
      const offset = this.append('.kcare.got', bytes, 8);
      words.forEach(({ copy, value }, index) => {
        if (copy) this.relocate('.kcare.got', offset + index * 8, relocationType.copy, copy, value);
      });
      place = this.patchSymbol(`${name}.slot`, '.kcare.got', offset, bytes.length, false);
      this.threadSlots.set(name, place);
    }
    return place;
  }

  /** `jmp *slot(%rip)` for a function that may be farther than 2 GiB away. */
  stub(target: Place): Place {
    return this.stubThrough(this.slot(target), this.nameOf(target));
  }

  /** The same through a slot that is there already. */
  stubThrough(slot: Place, name: string): Place {
    let place = this.stubs.get(slot.symbol);
    if (!place) {
      const offset = this.append('.text', Uint8Array.of(0xff, 0x25, 0, 0, 0, 0, 0x66, 0x90), 8);
      this.relocate('.text', offset + 2, relocationType.pc32, slot, -4);
      place = this.patchSymbol(`${name}.stub`, '.text', offset, 8, true);
      this.stubs.set(slot.symbol, place);
    }
    return place;
  }

  private nameOf(place: Place): string {
    return this.symbols[place.symbol]?.name ?? '';
  }

  get sections(): PatchSection[] {
    return writtenOrder.flatMap((name) => {
      const builder = this.builders.get(name);
      if (!builder) return [];
      const { size, alignment, bytes } = builder;
      return [{ name, size, alignment, bytes: name === '.bss' ? new Uint8Array(0) : bytes }];
    });
  }
}
