// A translation unit on its way into a patch: its three compiles, their comparison, its place in the shipped object.
import { baseName, type CodeObject, type ObjectFunction } from './code-object.js';
import type { Comparison } from './compare.js';
import { addressOf, type Placement } from './correlate.js';

export interface Unit {
  /** Source file, relative to the tree. */
  readonly file: string;
  /** Compiled with a section for each function and datum, without and with the fixes. */
  readonly original: CodeObject;
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

/**
 * The datum of the shipped object with this name in the unit's source. Of several (local statics of different
 * functions), the one that the original of `user` refers to.
 */
export function originalDatum(
  unit: Unit,
  base: string,
  user: ObjectFunction,
): OriginalDatum | 'ambiguous' | undefined {
  const { unit: stock, sections } = unit.placement;
  const sameBase = stock.symbols.filter(
    (symbol) => symbol.sectionIndex !== 0 && symbol.type === 'object' && baseName(symbol.name) === base,
  );
  if (sameBase.length === 0) return undefined;
  const names = sameBase.length > 1 ? datumsOf(unit, base, user) : undefined;
  const found = names ? sameBase.filter(({ name }) => names.has(name)) : sameBase;
  const [symbol, other] = found;
  if (!symbol || other) return 'ambiguous';
  const section = stock.elf.sections[symbol.sectionIndex];
  const address = section && sections.get(section.index);
  if (!section || address === undefined) return undefined;
  const bytes = section.bytes.subarray(symbol.value, symbol.value + symbol.size);
  return { name: symbol.name, address: address + symbol.value, size: symbol.size, bytes };
}

/** Names of the data called `base` in the original source of `user`, which a compile with sections tells apart. */
function datumsOf({ original, comparison }: Unit, base: string, user: ObjectFunction): Set<string> {
  const pair = comparison.changed.find(({ patched }) => patched.name === user.name);
  const names = new Set<string>();
  for (const relocation of pair?.original.relocations ?? []) {
    const { reference } = original.resolve(relocation);
    if (reference.kind !== 'data') continue;
    const { section, offset } = reference;
    const symbol = original.symbols.find(
      (candidate) =>
        candidate.sectionIndex === section.index && candidate.type === 'object' && candidate.value === offset,
    );
    if (symbol && baseName(symbol.name) === base) names.add(symbol.name);
  }
  return names;
}
