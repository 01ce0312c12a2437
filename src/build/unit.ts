// A translation unit on its way into a patch: its three compiles, their comparison, its place in the shipped object.
import type { CodeObject, ObjectFunction } from './code-object.js';
import type { Comparison } from './compare.js';
import { addressOf, type Placement } from './correlate.js';

export interface Unit {
  /** Source file, relative to the tree. */
  readonly file: string;
  /** Compiled with a section for each function and datum, with the fixes. */
  readonly patched: CodeObject;
  readonly comparison: Comparison;
  /** The unit compiled with the distribution's flags, as it was found in the shipped object. */
  readonly placement: Placement;
}

export interface OriginalFunction {
  readonly address: number;
  readonly size: number;
}

/**
 * The function of the shipped object that corresponds to `part` of another compile of the unit; 'ambiguous' where
 * compiler-made copies cannot be told apart.
 */
export function originalOf(unit: Unit, part: ObjectFunction): OriginalFunction | 'ambiguous' | undefined {
  const { functions } = unit.placement.unit;
  const sameBase = functions.filter(({ base }) => base === part.base);
  const found = sameBase.length > 1 ? sameBase.find(({ name }) => name === part.name) : sameBase[0];
  if (!found) return sameBase.length > 1 ? 'ambiguous' : undefined;
  const address = addressOf(found, unit.placement);
  return address === undefined ? undefined : { address, size: found.size };
}

export interface OriginalDatum {
  readonly name: string;
  readonly address: number;
  readonly size: number;
  readonly bytes: Uint8Array;
}

/** The datum of the shipped object with this name in the unit's source. */
export function originalDatum(
  unit: Unit,
  base: string,
  normalise: (name: string) => string,
): OriginalDatum | 'ambiguous' | undefined {
  const { unit: stock, sections } = unit.placement;
  const found = stock.symbols.filter(
    (symbol) => symbol.sectionIndex !== 0 && symbol.type === 'object' && normalise(symbol.name) === base,
  );
  const [symbol] = found;
  if (!symbol) return undefined;
  if (found.length > 1) return 'ambiguous';
  const section = stock.elf.sections[symbol.sectionIndex];
  const address = section && sections.get(section.index);
  if (!section || address === undefined) return undefined;
  const bytes = section.bytes.subarray(symbol.value, symbol.value + symbol.size);
  return { name: symbol.name, address: address + symbol.value, size: symbol.size, bytes };
}
