// How a linked object reaches other objects: its GOT slots and its PLT stubs.
import { ByteReader, stringAt } from './reader.js';
import { dynamicTag, relocationType, sectionType } from './constants.js';
import { findSection } from './file.js';
import { readRelocations, readSymbols } from './symbols.js';
import type { ElfFile, ElfSymbol } from './types.js';

/** A GOT slot that the loader fills with the address (or thread-pointer offset) of a symbol. */
export interface GotSlot {
  /** Virtual address of the 8-byte slot. */
  readonly address: number;
  readonly kind: 'function' | 'data' | 'threadOffset';
  readonly symbol: ElfSymbol;
}

export interface PltStub {
  readonly address: number;
  readonly slot: GotSlot;
}

export interface Linkage {
  readonly slots: readonly GotSlot[];
  readonly stubs: readonly PltStub[];
}

const slotKinds = new Map<number, GotSlot['kind']>([
  [relocationType.globDat, 'data'],
  [relocationType.jumpSlot, 'function'],
  [relocationType.tpOff64, 'threadOffset'],
]);

/** GOT slots from the dynamic relocations, and PLT stubs by decoding the indirect jumps of the .plt sections. */
export function readLinkage(elf: ElfFile): Linkage {
  const symbols = readSymbols(elf, '.dynsym');
  const slots: GotSlot[] = [];
  for (const section of elf.sections) {
    if (section.type !== sectionType.rela || section.address === 0) continue;
    for (const relocation of readRelocations(section)) {
      const kind = slotKinds.get(relocation.type);
      const symbol = symbols[relocation.symbolIndex];
      if (kind && symbol && relocation.addend === 0) slots.push({ address: relocation.offset, kind, symbol });
    }
  }
  const byAddress = new Map(slots.map((slot) => [slot.address, slot]));
  return { slots, stubs: [...readStubs(elf, byAddress)] };
}

function* readStubs(elf: ElfFile, slots: ReadonlyMap<number, GotSlot>): Generator<PltStub> {
  for (const name of ['.plt', '.plt.got', '.plt.sec']) {
    const section = findSection(elf, name);
    if (!section) continue;
    const step = name === '.plt.got' && section.entrySize === 8 ? 8 : section.entrySize || 16;
    for (let start = 0; start + step <= section.bytes.length; start += step) {
      const stub = section.bytes.subarray(start, start + step);
      const jump = findIndirectJump(stub);
      if (jump === undefined) continue;
      const displacement = new DataView(stub.buffer, stub.byteOffset).getInt32(jump + 2, true);
      const slot = slots.get(section.address + start + jump + 6 + displacement);
      if (slot) yield { address: section.address + start, slot };
    }
  }
}

/** Offset of `jmp *disp(%rip)` (ff 25), possibly behind endbr64 and a bnd prefix. */
function findIndirectJump(stub: Uint8Array): number | undefined {
  const start = stub[0] === 0xf3 && stub[1] === 0x0f ? 4 : 0;
  const at = stub[start] === 0xf2 ? start + 1 : start;
  return stub[at] === 0xff && stub[at + 1] === 0x25 ? at : undefined;
}

/** DT_SONAME and DT_NEEDED. */
export function readDynamicNames(elf: ElfFile): { soname: string; needed: string[] } {
  const dynamic = elf.sections.find((section) => section.type === sectionType.dynamic);
  const strings = dynamic && elf.sections[dynamic.link];
  const result: { soname: string; needed: string[] } = { soname: '', needed: [] };
  if (!dynamic || !strings) return result;
  const reader = new ByteReader(dynamic.bytes, dynamic.name);
  while (reader.position + 16 <= dynamic.bytes.length) {
    const tag = reader.bigU64();
    const value = Number(reader.bigU64());
    if (tag === 0n) break;
    if (tag === BigInt(dynamicTag.needed)) result.needed.push(stringAt(strings.bytes, value));
    if (tag === BigInt(dynamicTag.soname)) result.soname = stringAt(strings.bytes, value);
  }
  return result;
}
