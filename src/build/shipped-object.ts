// The shipped library, indexed for finding code and symbols in it.
import {
  buildIdOf,
  bytesAtAddress,
  findSection,
  loadRange,
  parseEhFrame,
  parseElf,
  readLinkage,
  readBinding,
  readRelocations,
  readSymbols,
  fileType,
  relocationType,
  sectionType,
  segmentType,
  symbolVisibility,
  type Binding,
  type ElfFile,
  type ElfSection,
  type ElfSymbol,
  type GotSlot,
  type IndirectSlot,
  type ThreadSlot,
} from '../elf/index.js';
import { KcareError } from '../base/errors.js';
import { useOf } from './instructions.js';

export class ShippedObject {
  readonly elf: ElfFile;
  readonly buildId: string;
  /** Virtual address behind the last byte of its memory image. */
  readonly imageEnd: number;
  readonly text: ElfSection;
  /** Defined dynamic symbols by name; the default version wins. */
  readonly defined = new Map<string, ElfSymbol>();
  /** What others may define instead of the object: its dynamic symbols of default visibility. */
  readonly exported = new Map<string, ElfSymbol>();
  readonly binding: Binding;
  readonly stubsByAddress = new Map<number, GotSlot | IndirectSlot>();
  readonly stubsByName = new Map<string, { address: number; slot: GotSlot }>();
  readonly slotsByName = new Map<string, GotSlot>();
  /** Stubs and slots of the object's own indirect functions, by the address of the resolver. */
  readonly stubsByResolver = new Map<number, number>();
  readonly slotsByResolver = new Map<number, number>();
  readonly threadSlots = new Map<number, ThreadSlot>();
  /** Offsets in the object's thread-local block, by name; the default version wins. */
  readonly threadLocal = new Map<string, number>();
  /** Size of that block with the padding at its end: the thread pointer of a program is right behind it. */
  readonly threadBlockSize: number;
  /** Length in bytes of the code covered by each unwind entry, by its first address. */
  readonly frames = new Map<number, number>();
  private pointers: Set<number> | undefined;

  constructor(bytes: Uint8Array, name: string) {
    this.elf = parseElf(bytes);
    const [buildId, text] = [buildIdOf(this.elf), findSection(this.elf, '.text')];
    if (buildId === undefined || !text) {
      throw new KcareError('ELF_UNSUPPORTED', `${name} has no build-id or no .text; it cannot be patched.`);
    }
    this.buildId = buildId;
    this.text = text;
    this.imageEnd = loadRange(this.elf.segments).end;
    this.binding = readBinding(this.elf);
    const block = this.elf.segments.find(({ type }) => type === segmentType.tls);
    const alignment = Math.max(block?.alignment ?? 1, 1);
    this.threadBlockSize = Math.ceil((block?.memorySize ?? 0) / alignment) * alignment;
    this.readSymbols();
    this.readLinkage();
    const frames = findSection(this.elf, '.eh_frame');
    if (frames) {
      for (const { start, length } of parseEhFrame(frames.bytes, frames.address))
        this.frames.set(start, length);
    }
  }

  private readSymbols(): void {
    const isBetter = (known: unknown, symbol: ElfSymbol): boolean =>
      known === undefined || symbol.versionIsDefault;
    for (const tableName of ['.symtab', '.dynsym'] as const) {
      for (const symbol of readSymbols(this.elf, tableName)) {
        const { name, type } = symbol;
        if (symbol.sectionIndex === 0 || symbol.binding === 'local') continue;
        if (type === 'tls') {
          if (isBetter(this.threadLocal.get(name), symbol)) this.threadLocal.set(name, symbol.value);
          continue;
        }
        if (isBetter(this.defined.get(name), symbol)) this.defined.set(name, symbol);
        if (tableName === '.symtab' || symbol.visibility !== symbolVisibility.default) continue;
        if (isBetter(this.exported.get(name), symbol)) this.exported.set(name, symbol);
      }
    }
  }

  private readLinkage(): void {
    const { slots, indirect, thread, stubs } = readLinkage(this.elf);
    for (const { address, slot } of stubs) {
      this.stubsByAddress.set(address, slot);
      if ('resolver' in slot) this.stubsByResolver.set(slot.resolver, address);
      else this.stubsByName.set(slot.symbol.name, { address, slot });
    }
    for (const slot of slots) this.slotsByName.set(slot.symbol.name, slot);
    for (const { address, resolver } of indirect) this.slotsByResolver.set(resolver, address);
    for (const slot of thread) this.threadSlots.set(slot.address, slot);
  }

  /** Whether its relocations tell every word that holds an address of the object. */
  get hasKnownAddresses(): boolean {
    return (
      this.elf.type === fileType.shared && !this.elf.sections.some(({ type }) => type === sectionType.relr)
    );
  }

  /** Whether a relocation makes some word hold `address`. */
  pointsTo(address: number): boolean {
    this.pointers ??= new Set(
      this.elf.sections
        .filter((section) => section.type === sectionType.rela && section.address !== 0)
        .flatMap((section) => readRelocations(section))
        .filter(({ type }) => type === relocationType.relative || type === relocationType.iRelative)
        .map(({ addend }) => addend),
    );
    return this.pointers.has(address);
  }

  /** Addresses of all fields of the code that hold the distance to `address`: operands of calls, jumps and loads. */
  usesOf(address: number): number[] {
    const { bytes, address: start } = this.text;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const places: number[] = [];
    for (let at = 0; at + 4 <= bytes.length; at++) {
      const distance = address - (start + at + 4);
      if (view.getInt32(at, true) !== distance) continue;
      // Padding before a function is often zeros, too; no load ends where a function begins.
      if (distance !== 0 || useOf(bytes, at) === 'branch') places.push(start + at);
    }
    return places;
  }

  bytesAt(address: number, size: number): Uint8Array {
    return bytesAtAddress(this.elf, address, size);
  }

  int32At(address: number): number {
    const bytes = this.bytesAt(address, 4);
    return new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
  }

  /** Whether the file has bytes for all of this range. */
  isMapped(address: number, size: number): boolean {
    return this.elf.segments.some(
      (segment) =>
        segment.type === segmentType.load &&
        address >= segment.address &&
        address + size <= segment.address + segment.fileSize,
    );
  }

  isText(address: number, size: number): boolean {
    return address >= this.text.address && address + size <= this.text.address + this.text.size;
  }
}
