// The shipped library, indexed for finding code and symbols in it.
import {
  buildIdOf,
  bytesAtAddress,
  findSection,
  loadRange,
  parseEhFrame,
  parseElf,
  readLinkage,
  readSymbols,
  type ElfFile,
  type ElfSection,
  type ElfSymbol,
  type GotSlot,
} from '../elf/index.js';
import { KcareError } from '../base/errors.js';

export class ShippedObject {
  readonly elf: ElfFile;
  readonly buildId: string;
  /** Virtual address behind the last byte of its memory image. */
  readonly imageEnd: number;
  readonly text: ElfSection;
  /** Defined dynamic symbols by name; the default version wins. */
  readonly defined = new Map<string, ElfSymbol>();
  readonly stubsByAddress = new Map<number, GotSlot>();
  readonly stubsByName = new Map<string, { address: number; slot: GotSlot }>();
  readonly slotsByAddress = new Map<number, GotSlot>();
  readonly slotsByName = new Map<string, GotSlot>();
  readonly threadSlots = new Map<string, GotSlot>();
  /** Length in bytes of the code covered by each unwind entry, by its first address. */
  readonly frames = new Map<number, number>();

  constructor(bytes: Uint8Array, name: string) {
    this.elf = parseElf(bytes);
    const [buildId, text] = [buildIdOf(this.elf), findSection(this.elf, '.text')];
    if (buildId === undefined || !text) {
      throw new KcareError('ELF_UNSUPPORTED', `${name} has no build-id or no .text; it cannot be patched.`);
    }
    this.buildId = buildId;
    this.text = text;
    this.imageEnd = loadRange(this.elf.segments).end;
    for (const tableName of ['.symtab', '.dynsym'] as const) {
      for (const symbol of readSymbols(this.elf, tableName)) {
        if (symbol.sectionIndex === 0 || symbol.binding === 'local' || symbol.type === 'tls') continue;
        if (!this.defined.has(symbol.name) || symbol.versionIsDefault) this.defined.set(symbol.name, symbol);
      }
    }
    const { slots, stubs } = readLinkage(this.elf);
    for (const { address, slot } of stubs) {
      this.stubsByAddress.set(address, slot);
      this.stubsByName.set(slot.symbol.name, { address, slot });
    }
    for (const slot of slots) {
      this.slotsByAddress.set(slot.address, slot);
      (slot.kind === 'threadOffset' ? this.threadSlots : this.slotsByName).set(slot.symbol.name, slot);
    }
    const frames = findSection(this.elf, '.eh_frame');
    if (frames) {
      for (const { start, length } of parseEhFrame(frames.bytes, frames.address))
        this.frames.set(start, length);
    }
  }

  bytesAt(address: number, size: number): Uint8Array {
    return bytesAtAddress(this.elf, address, size);
  }

  int32At(address: number): number {
    const bytes = this.bytesAt(address, 4);
    return new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
  }

  isText(address: number, size: number): boolean {
    return address >= this.text.address && address + size <= this.text.address + this.text.size;
  }
}
