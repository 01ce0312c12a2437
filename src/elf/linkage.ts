// How a linked object reaches other objects: its GOT slots and its PLT stubs.
import { ByteReader, stringAt } from './reader.js';
import { dynamicFlag, dynamicFlag1, dynamicTag, fileType, relocationType, sectionType } from './constants.js';
import { bytesAtAddress, findSection } from './file.js';
import { readRelocations, readSymbols } from './symbols.js';
import type { ElfFile, ElfSymbol } from './types.js';

/** A GOT slot that the loader fills with the address of a symbol. */
export interface GotSlot {
  /** Virtual address of the 8-byte slot. */
  readonly address: number;
  readonly kind: 'function' | 'data';
  readonly symbol: ElfSymbol;
}

/** A slot that the loader fills with what a resolver of the object itself returns (IFUNC of the object's own). */
export interface IndirectSlot {
  readonly address: number;
  /** Virtual address of the resolver. */
  readonly resolver: number;
}

/**
 * A slot through which code finds thread-local data:
 * - `pair`: module id and offset in the module's block, 16 bytes (general and local dynamic);
 * - `threadOffset`: distance from the thread pointer, 8 bytes (initial exec);
 * - `descriptor`: a function and its argument, 16 bytes (TLS descriptors).
 * Drepper, "ELF Handling For Thread-Local Storage"; x86-64 psABI, "Thread-Local Storage".
 */
export interface ThreadSlot {
  readonly address: number;
  readonly kind: 'pair' | 'threadOffset' | 'descriptor';
  /** Undefined where the object means its own block. */
  readonly symbol: ElfSymbol | undefined;
  /** In the object's own block; 0 where a symbol decides. */
  readonly offset: number;
}

export interface PltStub {
  readonly address: number;
  readonly slot: GotSlot | IndirectSlot;
}

export interface Linkage {
  readonly slots: readonly GotSlot[];
  readonly indirect: readonly IndirectSlot[];
  readonly thread: readonly ThreadSlot[];
  readonly stubs: readonly PltStub[];
}

const slotKinds = new Map<number, GotSlot['kind']>([
  [relocationType.globDat, 'data'],
  [relocationType.jumpSlot, 'function'],
]);

const threadKinds = new Map<number, ThreadSlot['kind']>([
  [relocationType.dtpMod64, 'pair'],
  [relocationType.tpOff64, 'threadOffset'],
  [relocationType.tlsDesc, 'descriptor'],
]);

/** Slots from the dynamic relocations, and PLT stubs by decoding the indirect jumps of the .plt sections. */
export function readLinkage(elf: ElfFile): Linkage {
  const symbols = readSymbols(elf, '.dynsym');
  const slots: GotSlot[] = [];
  const indirect: IndirectSlot[] = [];
  const thread: ThreadSlot[] = [];
  for (const section of elf.sections) {
    if (section.type !== sectionType.rela || section.address === 0) continue;
    for (const { type, offset: address, symbolIndex, addend } of readRelocations(section)) {
      const [kind, threadKind] = [slotKinds.get(type), threadKinds.get(type)];
      const symbol = symbols[symbolIndex];
      if (kind && symbol && addend === 0) slots.push({ address, kind, symbol });
      if (type === relocationType.iRelative) indirect.push({ address, resolver: addend });
      if (threadKind)
        thread.push(threadSlot(elf, threadKind, address, addend, symbolIndex ? symbol : undefined));
    }
  }
  const byAddress = new Map([...slots, ...indirect].map((slot) => [slot.address, slot]));
  return { slots, indirect, thread, stubs: [...readStubs(elf, byAddress)] };
}

function threadSlot(
  elf: ElfFile,
  kind: ThreadSlot['kind'],
  address: number,
  addend: number,
  symbol: ElfSymbol | undefined,
): ThreadSlot {
  if (symbol) return { address, kind, symbol, offset: 0 };
  // The linker knows offsets in the object's own block and writes them behind the module id.
  const offset = kind === 'pair' ? wordAt(elf, address + 8) : addend;
  return { address, kind, symbol, offset };
}

function wordAt(elf: ElfFile, address: number): number {
  return new ByteReader(bytesAtAddress(elf, address, 8), 'slot').u64();
}

function* readStubs(elf: ElfFile, slots: ReadonlyMap<number, GotSlot | IndirectSlot>): Generator<PltStub> {
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
  if (!strings) return result;
  for (const [tag, value] of dynamicEntries(elf)) {
    if (tag === dynamicTag.needed) result.needed.push(stringAt(strings.bytes, value));
    if (tag === dynamicTag.soname) result.soname = stringAt(strings.bytes, value);
  }
  return result;
}

/** How the loader binds an object's own references. */
export interface Binding {
  /** A program: its own definitions come before all others. */
  readonly isProgram: boolean;
  /** Its own definitions come first although it is a library. */
  readonly isSymbolic: boolean;
  /** All slots are filled before the object runs. */
  readonly isEager: boolean;
}

export function readBinding(elf: ElfFile): Binding {
  const entries = [...dynamicEntries(elf)];
  const has = (wanted: number, flag = 0): boolean =>
    entries.some(([tag, value]) => tag === wanted && (flag === 0 || (value & flag) !== 0));
  return {
    isProgram: elf.type === fileType.executable || has(dynamicTag.flags1, dynamicFlag1.pie),
    isSymbolic: has(dynamicTag.symbolic) || has(dynamicTag.flags, dynamicFlag.symbolic),
    isEager:
      has(dynamicTag.bindNow) ||
      has(dynamicTag.flags, dynamicFlag.bindNow) ||
      has(dynamicTag.flags1, dynamicFlag1.now),
  };
}

function* dynamicEntries(elf: ElfFile): Generator<readonly [tag: number, value: number]> {
  const dynamic = elf.sections.find((section) => section.type === sectionType.dynamic);
  if (!dynamic) return;
  const reader = new ByteReader(dynamic.bytes, dynamic.name);
  while (reader.position + 16 <= dynamic.bytes.length) {
    const tag = Number(reader.bigU64());
    const value = Number(reader.bigU64());
    if (tag === 0) return;
    yield [tag, value];
  }
}
