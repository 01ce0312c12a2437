// One unit before and after: what differs, and whether the shipped code may hold copies that this does not show.
import type { CodeObject } from './code-object.js';
import { coldSuffix, compareObjects, parentName, type Comparison } from './compare.js';
import type { Refusals } from './result.js';
import type { Unit } from './unit.js';

export interface UnitCompiles {
  /** Compiled as it was shipped, and what was inlined there: "callee caller" pairs. */
  readonly placement: Unit['placement'];
  readonly inlined: readonly string[];
  /** Compiled with a section for each function and datum. */
  readonly original: { readonly object: CodeObject; readonly inlined: readonly string[] };
  readonly patched: CodeObject;
}

/** The unit with its differences; undefined when there are none. `edited` are functions whose source changed, if known. */
export function compareUnit(
  file: string,
  { placement, inlined, original, patched }: UnitCompiles,
  edited: readonly string[],
  refusals: Refusals,
): Unit | undefined {
  const comparison = compareObjects(original.object, patched, refusals);
  const { changed, added, removed } = comparison;
  const functions = [...new Set([...edited, ...changed.map((pair) => parentName(pair.original))])];
  checkClones(functions, placement.unit, original.object, refusals);
  checkInlining(functions, comparison, inlined, original.inlined, refusals);
  if (changed.length + added.length + removed.length === 0) return undefined;
  return { file, original: original.object, patched, comparison, placement };
}

/**
 * The comparison sees inlining as it is with section flags. Where the distribution's flags inline an edited function
 * into one that does not change, the old code would live on there.
 */
function checkInlining(
  functions: readonly string[],
  comparison: Comparison,
  stock: readonly string[],
  withSections: readonly string[],
  refusals: Refusals,
): void {
  const replaced = new Set(comparison.changed.map(({ original }) => parentName(original)));
  const edited = new Set([...functions, ...replaced]);
  for (const pair of stock) {
    const [callee = '', caller = ''] = pair.split(' ').map((name) => name.replace(/\..*$/, ''));
    if (!edited.has(callee) || replaced.has(caller) || edited.has(caller) || withSections.includes(pair))
      continue;
    refusals.add(
      'INLINED_ELSEWHERE',
      `${callee} is inlined into ${caller}, which the patch leaves alone`,
      callee,
    );
  }
}

/** Copies that only the distribution's flags make of an edited function would keep the old code. */
function checkClones(
  functions: readonly string[],
  stock: CodeObject,
  withSections: CodeObject,
  refusals: Refusals,
): void {
  const known = new Set(withSections.functions.map(({ base }) => base));
  for (const part of stock.functions) {
    const source = part.base.replace(/\..*$/, '');
    if (!functions.includes(source) || known.has(part.base) || part.base.endsWith(coldSuffix)) continue;
    refusals.add(
      'INLINED_ELSEWHERE',
      `the copy ${part.name} cannot be compared: section flags do not make it`,
      source,
    );
  }
}
