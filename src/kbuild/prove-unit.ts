// Proves that a compiled unit is the one in the shipped kernel, byte for byte, and reads addresses out of its operands.
import { maskCode, matchesAt } from '../build/masked-search.js';
import type { ObjectFunction } from '../build/code-object.js';
import { relocationType, sectionFlag, type ElfRelocation, type ElfSection } from '../elf/index.js';
import type { KallsymsEntry } from './kallsyms.js';
import type { KernelObject } from './kernel-object.js';
import type { ShippedKernel } from './kernel-symbols.js';

export interface UnitProof {
  /** Functions whose bytes are in the shipped kernel, with where; by their names in the object. */
  readonly functions: ReadonlyMap<string, KallsymsEntry>;
  /** Addresses of the object's sections. */
  readonly sections: ReadonlyMap<number, bigint>;
  /** Addresses of symbols of other units, read from operands. */
  readonly externals: ReadonlyMap<string, bigint>;
}

interface Facts {
  readonly sections: Map<number, bigint>;
  readonly externals: Map<string, bigint>;
}

/** A function that is left out was not found, or in more than one place that fits. */
export function proveUnit(object: KernelObject, kernel: ShippedKernel): UnitProof {
  const facts: Facts = { sections: new Map(), externals: new Map() };
  const functions = new Map<string, KallsymsEntry>();
  // Where each name occurs once, first: what their operands tell decides between places of the others.
  const parts = [...object.functions].sort(
    (left, right) => kernel.named(left.name).length - kernel.named(right.name).length,
  );
  for (const part of parts) {
    const fitting = kernel.named(part.name).flatMap((entry) => {
      const found = factsAt(object, part, entry.address, kernel);
      return found && agrees(found, facts) ? [{ entry, found }] : [];
    });
    const [only, other] = fitting;
    if (!only || other) continue;
    functions.set(part.name, only.entry);
    for (const [key, value] of only.found.sections) facts.sections.set(key, value);
    for (const [key, value] of only.found.externals) facts.externals.set(key, value);
  }
  return { functions, ...facts };
}

function agrees(found: Facts, facts: Facts): boolean {
  const fits = <Key>(fresh: Map<Key, bigint>, known: Map<Key, bigint>): boolean =>
    [...fresh].every(([key, value]) => (known.get(key) ?? value) === value);
  return fits(found.sections, facts.sections) && fits(found.externals, facts.externals);
}

/** What the operands say if `part` is at `address`; undefined if it is not, or they contradict one another. */
function factsAt(
  object: KernelObject,
  part: ObjectFunction,
  address: bigint,
  kernel: ShippedKernel,
): Facts | undefined {
  const bytes = kernel.bytesAt(address, part.size);
  if (!bytes || !matchesAt(bytes, 0, maskCode(part.bytes, part.relocations))) return undefined;
  const sections = new Map([[part.section.index, wrap(address - BigInt(part.offset))]]);
  const facts: Facts = { sections, externals: new Map() };
  for (const relocation of part.relocations) {
    const value = targetOf(relocation, bytes, address);
    const symbol = object.symbols[relocation.symbolIndex];
    if (value === undefined || !symbol) continue;
    const section = object.elf.sections[symbol.sectionIndex];
    if (!section || symbol.sectionIndex === 0) {
      if ((facts.externals.get(symbol.name) ?? value) !== value) return undefined;
      // A name of the kernel's table must lie there: else the operand is of something else.
      const all = kernel.named(symbol.name);
      if (all.length > 0 && !all.some((entry) => entry.address === value)) return undefined;
      facts.externals.set(symbol.name, value);
    } else if (!isMerged(section)) {
      const base = wrap(value - BigInt(symbol.value));
      if ((sections.get(section.index) ?? base) !== base) return undefined;
      sections.set(section.index, base);
    }
  }
  return facts;
}

const isMerged = (section: ElfSection): boolean => (section.flags & sectionFlag.merge) !== 0;
const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);

/** The address of the symbol, by what the linker wrote (psABI, table 4.10); undefined: the type does not tell. */
function targetOf(
  { type, offset, addend }: ElfRelocation,
  bytes: Buffer,
  address: bigint,
): bigint | undefined {
  const [at, extra] = [address + BigInt(offset), BigInt(addend)];
  switch (type) {
    case relocationType.pc32:
    case relocationType.plt32:
      return wrap(BigInt(bytes.readInt32LE(offset)) - extra + at);
    case relocationType.abs32Signed:
      return wrap(BigInt(bytes.readInt32LE(offset)) - extra);
    case relocationType.abs32:
      return wrap(BigInt(bytes.readUInt32LE(offset)) - extra);
    case relocationType.abs64:
      return wrap(bytes.readBigUInt64LE(offset) - extra);
    default:
      return undefined;
  }
}
