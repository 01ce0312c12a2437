// Makes one patch out of all units: hunks with the original bytes, new code, unwind table, proofs.
import path from 'node:path';
import type { Hunk, Patch, PatchMetadata } from '../patchfile/index.js';
import { jumpSize } from '../patchfile/index.js';
import type { ObjectFunction } from './code-object.js';
import { takesOwnAddress } from './instructions.js';
import { UnitLinker } from './link-unit.js';
import { PatchImage } from './patch-image.js';
import type { Recipe } from './recipe.js';
import type { Refusals } from './result.js';
import type { ShippedObject } from './shipped-object.js';
import { SymbolResolver, type FoundSymbol } from './symbol-resolver.js';
import { originalOf, type Unit } from './unit.js';
import { UnwindBuilder } from './unwind.js';

export interface AssemblyFacts {
  readonly recipe: Recipe;
  readonly versions: { readonly runs: string; readonly fixed: string };
  readonly builder: string;
}

/** Gives every new function a name of its own: two units may each have a static function of the same name. */
function uniqueNames(units: readonly Unit[]): (unit: Unit, part: ObjectFunction) => string {
  const count = new Map<string, number>();
  for (const { comparison } of units) {
    for (const part of [...comparison.changed.map(({ patched }) => patched), ...comparison.added]) {
      count.set(part.name, (count.get(part.name) ?? 0) + 1);
    }
  }
  return (unit, part) =>
    (count.get(part.name) ?? 0) > 1 ? `${part.name}.${path.basename(unit.file, '.c')}` : part.name;
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
  const hunks = units.flatMap((unit) => hunksOf(unit, nameOf, shipped, image, resolver, refusals));
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
    objectSize: shipped.imageSize,
    metadata,
    hunks: hunks.sort((left, right) => left.address - right.address),
    sections: image.sections,
    symbols: image.symbols,
    relocations: image.relocations,
  };
}

function hunksOf(
  unit: Unit,
  nameOf: (unit: Unit, part: ObjectFunction) => string,
  shipped: ShippedObject,
  image: PatchImage,
  resolver: SymbolResolver,
  refusals: Refusals,
): Hunk[] {
  const { changed, removed } = unit.comparison;
  const replaced = changed.map(({ original, patched }) => ({ original, patched }));
  const gone = removed.map((original) => ({ original, patched: undefined }));
  return [...replaced, ...gone].flatMap(({ original, patched }): Hunk[] => {
    const { name } = original;
    const place = originalOf(unit, original);
    if (place === 'ambiguous') {
      refusals.add('AMBIGUOUS', `${name} cannot be told from other copies in ${unit.file}`, name);
      return [];
    }
    // A part that the distribution's flags do not make has no code that could be running.
    if (place === undefined && (patched === undefined || original.base.endsWith('.cold'))) return [];
    if (place === undefined) {
      refusals.add(
        'NOT_FOUND_IN_OBJECT',
        `${name} of ${unit.file} has no code of its own in the shipped object`,
        name,
      );
      return [];
    }
    if (patched && takesOwnAddress(patched)) {
      // R7: the pointer would lead into the patch and outlive it.
      refusals.add('UNSUPPORTED_RELOCATION', `${name} takes its own address`, name);
    }
    const { address, size } = place;
    const isGuard = patched === undefined || original.base.endsWith('.cold');
    if (!isGuard && size < jumpSize) {
      refusals.add('TOO_SHORT', `${name} has ${size} bytes, fewer than a jump needs`, name);
      return [];
    }
    image.objectSymbol(name, address, size, true);
    const text = unit.placement.unit.elf.sections.find((section) => section.name === '.text');
    const frame = shipped.frames.get(address) === size ? 'the unwind entry agrees' : 'no unwind entry';
    resolver.prove(
      name,
      'object-bytes',
      `0x${address.toString(16)}, ${size} bytes: in .text of ${unit.file} (${text?.size ?? 0} bytes), ` +
        `which is in the object once, at 0x${unit.placement.textAddress.toString(16)}; ${frame}`,
    );
    const hunk = { name, address, size, original: Uint8Array.from(shipped.bytesAt(address, size)) };
    return isGuard
      ? [{ kind: 'guard', ...hunk }]
      : [{ kind: 'replace', ...hunk, replacement: nameOf(unit, patched) }];
  });
}
