// Makes one patch out of all units: hunks with the original bytes, new code, unwind table, proofs.
import path from 'node:path';
import { limits, type Hunk, type Patch, type PatchMetadata } from '../patchfile/index.js';
import type { ObjectFunction } from './code-object.js';
import { hunksOf, proveUnit } from './hunks.js';
import { UnitLinker } from './link-unit.js';
import { PatchImage } from './patch-image.js';
import type { Refusals } from './result.js';
import type { ShippedObject } from './shipped-object.js';
import { SymbolResolver, type FoundSymbol } from './symbol-resolver.js';
import { unitProofs } from './unit-proof.js';
import type { Unit } from './unit.js';
import { UnwindBuilder } from './unwind.js';

/** What a patch says about itself, beside what its code proves. */
export type PatchFacts = Omit<PatchMetadata, 'architecture' | 'proof' | 'units'>;

/** Gives every new function a name of its own: two units may each have a static function of the same name. */
function uniqueNames(units: readonly Unit[]): (unit: Unit, part: ObjectFunction) => string {
  const spellings = (unit: Unit, { name }: ObjectFunction): [string, string, string] => {
    const inFile = `${name}.${path.basename(unit.file, path.extname(unit.file))}`;
    return [name, inFile, `${inFile}.${unit.placement.textAddress.toString(16)}`];
  };
  const count = new Map<string, number>();
  for (const unit of units) {
    for (const part of [...unit.comparison.changed.map(({ patched }) => patched), ...unit.comparison.added]) {
      for (const spelling of spellings(unit, part)) count.set(spelling, (count.get(spelling) ?? 0) + 1);
    }
  }
  return (unit, part) => {
    const all = spellings(unit, part);
    return all.find((spelling) => (count.get(spelling) ?? 0) === 1) ?? all[2];
  };
}

/** Of a template or an inline function each unit has a copy, and the object only one. */
function onePerPlace(hunks: readonly Hunk[]): Hunk[] {
  const places = new Map<string, Hunk>();
  for (const hunk of hunks) {
    const place = `${hunk.address} ${hunk.size}`;
    const known = places.get(place);
    if (known?.kind !== 'replace') places.set(place, hunk);
  }
  return [...places.values()];
}

/** The patch of all units; what speaks against it goes to `refusals`, and the result is then of no use. */
export function assemblePatch(
  units: readonly Unit[],
  shipped: ShippedObject,
  found: ReadonlyMap<string, FoundSymbol>,
  facts: PatchFacts,
  refusals: Refusals,
): Patch {
  const image = new PatchImage();
  const resolver = new SymbolResolver(shipped, image, found);
  const nameOf = uniqueNames(units);
  const hunks = onePerPlace(
    units.flatMap((unit) => hunksOf(unit, (part) => nameOf(unit, part), shipped, refusals)),
  );
  for (const { name, address, size } of hunks) image.objectSymbol(name, address, size, true);
  for (const unit of units) proveUnit(unit, hunks, shipped, resolver);
  const linkers = units.map((unit) => ({
    unit,
    linker: new UnitLinker(unit, shipped, image, resolver, refusals),
  }));
  for (const { unit, linker } of linkers) linker.place((part) => nameOf(unit, part));
  const unwind = new UnwindBuilder(image, refusals);
  for (const { linker } of linkers) linker.link(unwind);
  unwind.finish();
  const hooks = linkers.flatMap(({ unit, linker }) => linker.hooks((part) => nameOf(unit, part)));
  if (hooks.length > limits.hooks)
    refusals.add('HOOK', `the patch has ${hooks.length} hooks, and at most ${limits.hooks} are possible`);
  if (hooks.length > 0 && !hunks.some(({ kind }) => kind === 'replace'))
    refusals.add('HOOK', 'the patch has hooks, but replaces no function; data alone cannot be patched');
  const { date, builder, ...named } = facts;
  // In the order in which the patch file has them.
  const metadata: PatchMetadata = {
    ...named,
    architecture: 'x86-64',
    date,
    builder,
    proof: resolver.allProofs,
    units: units.flatMap((unit) => unitProofs(unit, hunks)),
  };
  return {
    buildId: shipped.buildId,
    objectSize: shipped.imageEnd,
    metadata,
    hunks: hunks.sort((left, right) => left.address - right.address),
    ...(hooks.length > 0 && { hooks }),
    sections: image.sections,
    symbols: image.symbols,
    relocations: image.relocations,
  };
}
