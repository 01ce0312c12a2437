// Finds where the linker put a unit in the shipped library, and reads from the code there what its operands refer to.
import {
  relocationType,
  sectionFlag,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';
import type { CodeObject, ObjectFunction } from './code-object.js';
import { findCode, maskCode, matchesAt, type MaskedCode } from './masked-search.js';
import type { ShippedObject } from './shipped-object.js';
import { isRelaxedThreadCall, readThreadOperand, type ThreadOperand } from './thread-operands.js';

/** What the shipped code uses for a symbol of another unit. All addresses are virtual addresses in the object. */
export interface ExternalUse {
  /** Defined in the object itself. */
  address?: number;
  stub?: number;
  slot?: number;
  /** Offset in the object's own thread-local block. */
  threadOffset?: number;
}

/** A unit found in the shipped library. */
export interface Placement {
  readonly unit: CodeObject;
  /** Address of .text, and of every other section that its operands give away, by section index. */
  readonly sections: ReadonlyMap<number, number>;
  /** Offset in the object's thread-local block of every thread-local section that operands give away. */
  readonly threadSections: ReadonlyMap<number, number>;
  readonly externals: ReadonlyMap<string, ExternalUse>;
  readonly textAddress: number;
  /** Its bytes are there once; otherwise operands or the linker's map told where it is. */
  readonly isUnique: boolean;
  readonly operands: Operands;
}

/** Addresses of fields in the shipped code, by what they refer to. */
export interface Operands {
  /** For each section: the address that a field leads to, and the field. */
  readonly sections: ReadonlyMap<number, ReadonlyMap<number, number>>;
  readonly externals: ReadonlyMap<string, number>;
}

export type Correlation =
  { readonly placement: Placement } | { readonly problem: 'absent' | 'ambiguous'; readonly detail: string };

class Contradiction extends Error {}

/** Addresses that several operands must agree on. */
class Readings {
  readonly sections = new Map<number, number>();
  readonly threadSections = new Map<number, number>();
  readonly externals = new Map<string, ExternalUse>();
  readonly operands = {
    sections: new Map<number, Map<number, number>>(),
    externals: new Map<string, number>(),
  };

  /** An operand of the field at `place` gives the address of a section away, and leads to `target` in it. */
  operand(index: number, address: number, place: number, target: number): void {
    this.section(index, address);
    const targets = this.operands.sections.get(index) ?? new Map<number, number>();
    if (!targets.has(target)) targets.set(target, place);
    this.operands.sections.set(index, targets);
  }

  section(index: number, address: number): void {
    this.note(this.sections, index, address);
  }

  threadSection(index: number, offset: number): void {
    this.note(this.threadSections, index, offset);
  }

  private note(places: Map<number, number>, index: number, value: number): void {
    const known = places.get(index);
    if (known !== undefined && known !== value) throw new Contradiction(`section ${index}`);
    places.set(index, value);
  }

  external(name: string, use: ExternalUse, place?: number): void {
    if (place !== undefined && !this.operands.externals.has(name)) this.operands.externals.set(name, place);
    const known = this.externals.get(name) ?? {};
    for (const key of ['address', 'stub', 'slot', 'threadOffset'] as const) {
      const value = use[key];
      if (value === undefined) continue;
      if (known[key] !== undefined && known[key] !== value) throw new Contradiction(name);
      known[key] = value;
    }
    this.externals.set(name, known);
  }
}

/** Of a field that holds a distance, bytes. */
const fieldSize = 4;

/** What code calls for thread-local data of a library. */
const threadFunction = '__tls_get_addr';

const directTypes: ReadonlySet<number> = new Set([relocationType.pc32, relocationType.plt32]);
const gotTypes: ReadonlySet<number> = new Set([
  relocationType.gotPcRel,
  relocationType.gotPcRelX,
  relocationType.rexGotPcRelX,
]);

/** Addresses of sections by section index, as a linker's map tells them; bytes have to confirm each. */
export type SectionHints = ReadonlyMap<number, number>;

/**
 * Finds the whole .text of a unit compiled with the distribution's own flags. Exactly one place must have the same
 * bytes with relocations masked; where several do, the operands and the unwind table must leave one. With `hints` the
 * unit must lie exactly there.
 */
export function correlate(unit: CodeObject, shipped: ShippedObject, hints?: SectionHints): Correlation {
  if (hints) return confirm(unit, shipped, hints);
  const text = unit.elf.sections.find(({ name }) => name === '.text');
  if (!text || text.size === 0) return { problem: 'absent', detail: 'it has no code' };
  const code = maskCode(text.bytes, unit.relocations(text));
  const offsets = findCode(shipped.text.bytes, code, text.alignment);
  if (offsets.length === 0) return { problem: 'absent', detail: 'its code is not in the object' };
  const placements = offsets.flatMap((offset) => {
    const found = examine(unit, shipped, new Map([[text.index, shipped.text.address + offset]]));
    return found instanceof Contradiction ? [] : [found];
  });
  const [only] = placements;
  if (only && placements.length === 1) return { placement: { ...only, isUnique: offsets.length === 1 } };
  if (!only)
    return { problem: 'absent', detail: 'its code is there, but operands or unwind entries do not agree' };
  return { problem: 'ambiguous', detail: `its code is in the object in ${placements.length} places` };
}

function confirm(unit: CodeObject, shipped: ShippedObject, hints: SectionHints): Correlation {
  const isCode = (index: number): boolean => isExecutable(unit.elf.sections[index]);
  if (![...hints.keys()].some(isCode))
    return { problem: 'absent', detail: 'the linker took none of its code' };
  const found = examine(unit, shipped, hints);
  if (found instanceof Contradiction)
    return { problem: 'absent', detail: `what the compiler makes now differs in ${found.message}` };
  return { placement: found };
}

const isExecutable = (section: ElfSection | undefined): boolean =>
  ((section?.flags ?? 0) & sectionFlag.execute) !== 0;

/** The copy of a template or an inline function that the linker took may come from another unit, compiled otherwise. */
const isShared = (section: ElfSection): boolean => (section.flags & sectionFlag.group) !== 0;

function examine(unit: CodeObject, shipped: ShippedObject, known: SectionHints): Placement | Contradiction {
  const readings = new Readings();
  const foreign = new Set<number>();
  try {
    for (const [index, address] of known) readings.section(index, address);
    const done = new Set<number>();
    // Operands of .text give away where unlikely parts lie, whose operands count as well.
    for (let progress = true; progress;) {
      progress = false;
      for (const [index, address] of [...readings.sections]) {
        const section = unit.elf.sections[index];
        if (!section || done.has(index) || !isExecutable(section)) continue;
        done.add(index);
        progress = true;
        const code = maskCode(section.bytes, unit.relocations(section));
        if (!isCodeAt(shipped, address, code)) {
          if (!isShared(section) || known.has(index)) throw new Contradiction(section.name);
          foreign.add(index);
          continue;
        }
        // Another unit's copy refers to that unit's data.
        if (isShared(section) && !known.has(index)) continue;
        for (const relocation of unit.relocations(section))
          readOperand(unit, shipped, relocation, section, address, readings);
      }
    }
  } catch (error) {
    if (error instanceof Contradiction) return error;
    throw error;
  }
  for (const index of foreign) readings.sections.delete(index);
  for (const [index, address] of sharedCopies(unit, shipped, readings.sections))
    readings.sections.set(index, address);
  const [textAddress = 0] = [...known]
    .filter(([index]) => isExecutable(unit.elf.sections[index]))
    .map(([, at]) => at);
  const { sections, threadSections, externals, operands } = readings;
  const isUnique = false;
  const placement = { unit, sections, threadSections, externals, textAddress, isUnique, operands };
  const wrong = unit.functions.find((part) => !agrees(part, placement, shipped));
  return wrong ? new Contradiction(wrong.name) : placement;
}

/** Code of which the linker took another unit's copy, and that no operand names: found by its symbol, held to its bytes. */
function* sharedCopies(
  unit: CodeObject,
  shipped: ShippedObject,
  found: SectionHints,
): Generator<readonly [number, number]> {
  for (const { section, name, offset, symbol } of unit.functions) {
    if (!isShared(section) || found.has(section.index) || symbol.binding === 'local') continue;
    const exported = shipped.defined.get(name);
    if (!exported) continue;
    const address = exported.value - offset;
    if (isCodeAt(shipped, address, maskCode(section.bytes, unit.relocations(section))))
      yield [section.index, address];
  }
}

function isCodeAt(shipped: ShippedObject, address: number, code: MaskedCode): boolean {
  if (shipped.isText(address, code.bytes.length))
    return matchesAt(shipped.text.bytes, address - shipped.text.address, code);
  return (
    shipped.isMapped(address, code.bytes.length) &&
    matchesAt(shipped.bytesAt(address, code.bytes.length), 0, code)
  );
}

function readOperand(
  unit: CodeObject,
  shipped: ShippedObject,
  relocation: ElfRelocation,
  from: ElfSection,
  sectionAddress: number,
  readings: Readings,
): void {
  const { type, addend, offset } = relocation;
  const place = sectionAddress + offset;
  const symbol = unit.symbols[relocation.symbolIndex];
  if (!symbol) return;
  const isLocal = symbol.sectionIndex !== 0;
  const section = unit.elf.sections[symbol.sectionIndex];
  const threadOperand = readThreadOperand(shipped, relocation, from.bytes, place);
  if (threadOperand) {
    readThreadLocal(symbol, isLocal, threadOperand, shipped, readings);
    return;
  }
  if (symbol.name === threadFunction && isRelaxedThreadCall(shipped, from.bytes, offset, place)) return;
  const target = shipped.int32At(place) + place + fieldSize;
  const value = target - fieldSize - addend;
  const isPlace = isLocal && section && (section.flags & (sectionFlag.merge | sectionFlag.tls)) === 0;
  if (directTypes.has(type)) {
    if (!isLocal) readings.external(symbol.name, directUse(shipped, value), place);
    else if (isPlace && !shipped.stubsByAddress.has(value))
      readings.operand(section.index, value - symbol.value, place, target);
  } else if (gotTypes.has(type)) {
    const opcode = shipped.bytesAt(place - 2, 2);
    const isRelaxed = opcode[0] === 0x8d || (opcode[0] === 0x67 && opcode[1] === 0xe8);
    const isLoad = opcode[0] === from.bytes[offset - 2];
    if (isRelaxed && !isLocal) readings.external(symbol.name, { address: value }, place);
    else if (isRelaxed && isPlace && symbol.type !== 'ifunc' && symbol.binding !== 'weak')
      readings.operand(section.index, value - symbol.value, place, target);
    else if (isLoad && !isLocal) readings.external(symbol.name, { slot: value }, place);
  }
}

function readThreadLocal(
  symbol: ElfSymbol,
  isLocal: boolean,
  operand: ThreadOperand,
  shipped: ShippedObject,
  readings: Readings,
): void {
  const name = 'slot' in operand ? operand.slot.symbol?.name : undefined;
  if (name !== undefined && name !== symbol.name) throw new Contradiction(name);
  const offset = 'offset' in operand ? operand.offset : operand.slot.offset;
  // Another object may define what has a name: then only the slot says where it is.
  const own = name === undefined ? offset : isLocal ? shipped.threadLocal.get(name) : undefined;
  if (own === undefined) return;
  if (isLocal) readings.threadSection(symbol.sectionIndex, own - symbol.value);
  else readings.external(symbol.name, { threadOffset: own });
}

function directUse(shipped: ShippedObject, value: number): ExternalUse {
  return shipped.stubsByAddress.has(value) ? { stub: value } : { address: value };
}

/** The symbol table and the unwind table of the shipped object must tell the same about a function. */
function agrees(part: ObjectFunction, placement: Placement, shipped: ShippedObject): boolean {
  const address = addressOf(part, placement);
  if (address === undefined) return true;
  const exported = part.symbol.binding === 'local' ? undefined : shipped.defined.get(part.name);
  if (exported && exported.value !== address) return false;
  const frame = shipped.frames.get(address);
  return frame === undefined || frame === part.size;
}

/** The address of a function of a correlated unit in the shipped object; undefined where its section is not known. */
export function addressOf(part: ObjectFunction, placement: Placement): number | undefined {
  const base = placement.sections.get(part.section.index);
  return base === undefined ? undefined : base + part.offset;
}
