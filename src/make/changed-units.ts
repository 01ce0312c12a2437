// Finds the units that patches may change, and compiles them before and after.
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { compareObjects } from '../build/compare.js';
import { Refusals } from '../build/result.js';
import { comparedUnit } from '../build/type-check.js';
import { changedSignatures, typeProblems, type TypeProblem } from '../build/type-changes.js';
import { isAssembler } from './compiler-arguments.js';
import type { ChangedUnit } from './deliverable.js';
import { compileKey, sourceOf, type BuildRecords, type RecordedCompile } from './records.js';
import {
  comparisonFlags,
  compileAgain,
  dependenciesOf,
  needsPositionIndependence,
  type CompiledUnit,
} from './recompile.js';
import { twoAtATime } from './tools.js';

/** A unit in both builds; the second command differs where a patch changes flags. */
export interface AffectedUnit {
  readonly before: RecordedCompile;
  readonly after: RecordedCompile;
}

export interface Affected {
  readonly units: readonly AffectedUnit[];
  /** Compiles that only the patched build has. */
  readonly added: readonly RecordedCompile[];
}

/** Units that the patched build compiled again, and those made of changed files that it missed. Sources must be patched. */
export async function affectedUnits(
  original: BuildRecords,
  patched: BuildRecords,
  changedFiles: readonly string[],
): Promise<Affected> {
  const before = new Map(original.compiles.map((compile) => [compileKey(compile), compile]));
  const again = new Map(patched.compiles.map((compile) => [compileKey(compile), compile]));
  const changed = new Set(changedFiles);
  const sources = new Set(original.compiles.map(sourceOf));
  const others = changedFiles.filter((file) => !sources.has(file) && /\.[a-zA-Z+]+$/.test(file));
  const rest = original.compiles.filter((compile) => !again.has(compileKey(compile)));
  const missed = await twoAtATime(rest, async (compile) => {
    if (changed.has(sourceOf(compile))) return compile;
    // Makefiles often do not know which headers a unit includes.
    if (others.length === 0 || !existsSync(sourceOf(compile))) return undefined;
    const files = await dependenciesOf(compile);
    return files.some((file) => changed.has(file)) ? compile : undefined;
  });
  const units = [...again.values()].flatMap((after): AffectedUnit[] => {
    const known = before.get(compileKey(after));
    return known ? [{ before: known, after }] : [];
  });
  for (const compile of missed) if (compile) units.push({ before: compile, after: compile });
  const added = [...again.values()].filter((compile) => !before.has(compileKey(compile)));
  return { units, added };
}

export interface PatchedUnit extends AffectedUnit {
  readonly patched: CompiledUnit;
  readonly flags: readonly string[];
  /** Object files of its compiles, without what tells them apart. */
  readonly base: string;
}

/** To be called while the sources are patched. */
export async function compilePatched(
  units: readonly AffectedUnit[],
  objects: string,
): Promise<PatchedUnit[]> {
  await rm(objects, { recursive: true, force: true });
  await mkdir(objects, { recursive: true });
  const numbered = units.map((unit, index) => ({ ...unit, base: path.join(objects, String(index)) }));
  return await twoAtATime(numbered, async ({ before, after, base }) => {
    const output = `${base}.patched.o`;
    let flags = await comparisonFlags(after, false);
    let patched = await compileAgain(fixedTime(after), output, flags);
    if (needsPositionIndependence(patched.object)) {
      flags = await comparisonFlags(after, true);
      patched = await compileAgain(fixedTime(after), output, flags);
    }
    return { before, after, patched, flags, base };
  });
}

export interface ComparedUnits {
  /** Units without any difference are left out. */
  readonly changed: readonly ChangedUnit[];
  /** Types that the patches change although running processes hold values of them. */
  readonly typeProblems: readonly TypeProblem[];
}

/** To be called when the sources are the original ones again. */
export async function compileOriginals(
  units: readonly PatchedUnit[],
  nameOf: (file: string) => string,
): Promise<ComparedUnits> {
  const compared = await twoAtATime(units, async ({ before, patched, flags, base }) => {
    const original = await compileAgain(fixedTime(before), `${base}.original.o`, flags);
    // A change of data alone changes no function, and must not be passed over.
    const refusals = new Refusals();
    const comparison = compareObjects(original.object, patched.object, refusals);
    const file = nameOf(sourceOf(before));
    const objects = { original: original.file, patched: patched.file };
    const types = isAssembler(before.source)
      ? undefined
      : await comparedUnit(file, objects, [original.object, patched.object], comparison);
    const { changed, added, removed } = comparison;
    if (changed.length + added.length + removed.length + refusals.all.length === 0)
      return { types, unit: undefined };
    const stock = await compileAgain(before, `${base}.stock.o`);
    const signatures = types ? changedSignatures(types) : new Set<string>();
    return { types, unit: { compile: before, file, stock, original, patched, signatures } };
  });
  return {
    changed: compared.flatMap(({ unit }) => unit ?? []),
    typeProblems: typeProblems(compared.flatMap(({ types }) => types ?? [])),
  };
}

/** __DATE__ and __TIME__ must not make a difference of their own. */
const fixedTime = (compile: RecordedCompile): RecordedCompile => ({
  ...compile,
  environment: { SOURCE_DATE_EPOCH: '0', ...compile.environment },
});
