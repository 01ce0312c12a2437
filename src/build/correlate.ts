// Finds where the linker put a unit in the shipped library, and reads from the code there what its operands refer to.
import { relocationType, sectionFlag, type ElfRelocation, type ElfSection } from '../elf/index.js';
import type { CodeObject, ObjectFunction } from './code-object.js';
import { findCode, maskCode, matchesAt } from './masked-search.js';
import type { ShippedObject } from './shipped-object.js';

/** What the shipped code uses for a symbol of another unit. All addresses are virtual addresses in the object. */
export interface ExternalUse {
  /** Defined in the object itself. */
  address?: number;
  stub?: number;
  slot?: number;
  threadSlot?: number;
}

/** A unit found in the shipped library. */
export interface Placement {
  readonly unit: CodeObject;
  /** Address of .text, and of every other section that its operands give away, by section index. */
  readonly sections: ReadonlyMap<number, number>;
  readonly externals: ReadonlyMap<string, ExternalUse>;
  readonly textAddress: number;
}

export type Correlation =
  { readonly placement: Placement } | { readonly problem: 'absent' | 'ambiguous'; readonly detail: string };

class Contradiction extends Error {}

/** Addresses that several operands must agree on. */
class Readings {
  readonly sections = new Map<number, number>();
  readonly externals = new Map<string, ExternalUse>();

  section(index: number, address: number): void {
    const known = this.sections.get(index);
    if (known !== undefined && known !== address) throw new Contradiction(`section ${index}`);
    this.sections.set(index, address);
  }

  external(name: string, use: ExternalUse): void {
    const known = this.externals.get(name) ?? {};
    for (const key of ['address', 'stub', 'slot', 'threadSlot'] as const) {
      const value = use[key];
      if (value === undefined) continue;
      if (known[key] !== undefined && known[key] !== value) throw new Contradiction(name);
      known[key] = value;
    }
    this.externals.set(name, known);
  }
}

const directTypes: ReadonlySet<number> = new Set([relocationType.pc32, relocationType.plt32]);
const gotTypes: ReadonlySet<number> = new Set([
  relocationType.gotPcRel,
  relocationType.gotPcRelX,
  relocationType.rexGotPcRelX,
]);

/**
 * Finds the whole .text of a unit compiled with the distribution's own flags. Exactly one place must have the same
 * bytes with relocations masked; where several do, the operands and the unwind table must leave one.
 */
export function correlate(unit: CodeObject, shipped: ShippedObject): Correlation {
  const text = unit.elf.sections.find(({ name }) => name === '.text');
  if (!text || text.size === 0) return { problem: 'absent', detail: 'it has no code' };
  const code = maskCode(text.bytes, unit.relocations(text));
  const offsets = findCode(shipped.text.bytes, code, text.alignment);
  if (offsets.length === 0) return { problem: 'absent', detail: 'its code is not in the object' };
  const placements = offsets.flatMap(
    (offset) => examine(unit, shipped, text, shipped.text.address + offset) ?? [],
  );
  const [only] = placements;
  if (only && placements.length === 1) return { placement: only };
  if (!only)
    return { problem: 'absent', detail: 'its code is there, but operands or unwind entries do not agree' };
  return { problem: 'ambiguous', detail: `its code is in the object in ${placements.length} places` };
}

function examine(
  unit: CodeObject,
  shipped: ShippedObject,
  text: ElfSection,
  textAddress: number,
): Placement | undefined {
  const readings = new Readings();
  try {
    readings.section(text.index, textAddress);
    const done = new Set<number>();
    // Operands of .text give away where unlikely parts lie, whose operands count as well.
    for (let progress = true; progress;) {
      progress = false;
      for (const [index, address] of [...readings.sections]) {
        const section = unit.elf.sections[index];
        if (!section || done.has(index) || (section.flags & sectionFlag.execute) === 0) continue;
        done.add(index);
        progress = true;
        const code = maskCode(section.bytes, unit.relocations(section));
        if (!matchesAt(shipped.text.bytes, address - shipped.text.address, code))
          throw new Contradiction(section.name);
        for (const relocation of unit.relocations(section))
          readOperand(unit, shipped, relocation, address, readings);
      }
    }
  } catch (error) {
    if (error instanceof Contradiction) return undefined;
    throw error;
  }
  const placement = { unit, sections: readings.sections, externals: readings.externals, textAddress };
  return unit.functions.every((part) => agrees(part, placement, shipped)) ? placement : undefined;
}

function readOperand(
  unit: CodeObject,
  shipped: ShippedObject,
  relocation: ElfRelocation,
  sectionAddress: number,
  readings: Readings,
): void {
  const { type, addend, offset } = relocation;
  const place = sectionAddress + offset;
  const symbol = unit.symbols[relocation.symbolIndex];
  if (!symbol) return;
  const isLocal = symbol.sectionIndex !== 0;
  const value = shipped.int32At(place) + place - addend;
  if (directTypes.has(type)) {
    const section = unit.elf.sections[symbol.sectionIndex];
    if (!isLocal) {
      readings.external(symbol.name, directUse(shipped, value));
    } else if (section && (section.flags & sectionFlag.merge) === 0 && !shipped.stubsByAddress.has(value)) {
      readings.section(section.index, value - symbol.value);
    }
  } else if (type === relocationType.gotTpOff) {
    if (shipped.slotsByAddress.get(value)?.kind === 'threadOffset')
      readings.external(symbol.name, { threadSlot: value });
  } else if (gotTypes.has(type)) {
    const opcode = shipped.bytesAt(place - 2, 2);
    const isRelaxed = opcode[0] === 0x8d || (opcode[0] === 0x67 && opcode[1] === 0xe8);
    const isLoad =
      opcode[0] === unit.elf.sections[sectionOf(unit, readings, sectionAddress)]?.bytes[offset - 2];
    if (isRelaxed && !isLocal) readings.external(symbol.name, { address: value });
    else if (isLoad && !isLocal) readings.external(symbol.name, { slot: value });
  }
}

function sectionOf(unit: CodeObject, readings: Readings, address: number): number {
  for (const [index, known] of readings.sections) {
    if (known === address && ((unit.elf.sections[index]?.flags ?? 0) & sectionFlag.execute) !== 0)
      return index;
  }
  return 0;
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
