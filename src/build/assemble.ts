// Makes one patch out of all units: hunks with the original bytes, new code, unwind table, proofs.
import path from 'node:path';
import type { Patch, PatchMetadata } from '../patchfile/index.js';
import type { ObjectFunction } from './code-object.js';
import { hunksOf, proveUnit } from './hunks.js';
import { UnitLinker } from './link-unit.js';
import { PatchImage } from './patch-image.js';
import type { Recipe } from './recipe.js';
import type { Refusals } from './result.js';
import type { ShippedObject } from './shipped-object.js';
import { SymbolResolver, type FoundSymbol } from './symbol-resolver.js';
import type { Unit } from './unit.js';
import { UnwindBuilder } from './unwind.js';

export interface AssemblyFacts {
  readonly recipe: Recipe;
  readonly versions: { readonly runs: string; readonly fixed: string };
  readonly builder: string;
}

/** Gives every new function a name of its own: two units may each have a static function of the same name. */
function uniqueNames(units: readonly Unit[]): (unit: Unit, part: ObjectFunction) => string {
  const spellings = (unit: Unit, { name }: ObjectFunction): [string, string, string] => {
    const inFile = `${name}.${path.basename(unit.file, '.c')}`;
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

/** The patch of all units; what speaks against it goes to `refusals`, and the result is then of no use. */
export function assemblePatch(
  units: readonly Unit[],
  shipped: ShippedObject,
  found: ReadonlyMap<string, FoundSymbol>,
  { recipe, versions, builder }: AssemblyFacts,
  refusals: Refusals,
): Patch {
  const image = new PatchImage();
  const resolver = new SymbolResolver(shipped, image, found);
  const nameOf = uniqueNames(units);
  const hunks = units.flatMap((unit) => hunksOf(unit, (part) => nameOf(unit, part), shipped, refusals));
  for (const { name, address, size } of hunks) image.objectSymbol(name, address, size, true);
  for (const unit of units) proveUnit(unit, hunks, shipped, resolver);
  const linkers = units.map((unit) => ({ unit, linker: new UnitLinker(unit, image, resolver, refusals) }));
  for (const { unit, linker } of linkers) linker.place((part) => nameOf(unit, part));
  const unwind = new UnwindBuilder(image, refusals);
  for (const { linker } of linkers) linker.link(unwind);
  unwind.finish();
  const metadata: PatchMetadata = {
    name: recipe.name,
    level: recipe.level,
    description: recipe.description,
    cves: recipe.cves.map(({ id, description, score, url }) => ({ id, description, score, url })),
    package: recipe.package.binary,
    packageVersion: versions.runs,
    fixedVersion: versions.fixed,
    objectName: path.basename(recipe.package.object),
    architecture: 'x86-64',
    date: recipe.date,
    builder,
    proof: resolver.allProofs,
  };
  return {
    buildId: shipped.buildId,
    objectSize: shipped.imageEnd,
    metadata,
    hunks: hunks.sort((left, right) => left.address - right.address),
    sections: image.sections,
    symbols: image.symbols,
    relocations: image.relocations,
  };
}
