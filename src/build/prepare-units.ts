// Turns a recipe's fixes into units: edits, compiles and compares them, and finds them in the shipped object.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { CodeObject, digest } from './code-object.js';
import { coldSuffix, compareObjects, parentName, type Comparison } from './compare.js';
import { commandsFor, compileUnit, readUnitSource, sectionFlags } from './compile.js';
import type { CompileCommand, ConfiguredTree } from './configure.js';
import { correlate } from './correlate.js';
import type { Recipe } from './recipe.js';
import type { Refusals } from './result.js';
import type { ShippedObject } from './shipped-object.js';
import { replaceFunctions, type EditRequest } from './source-edit.js';
import { checkTypes } from './source-types.js';
import type { Unit } from './unit.js';

export interface BuildContext {
  readonly work: string;
  readonly tree: ConfiguredTree;
  /** Unpacked source of the fixed version. */
  readonly fixedTree: string;
  readonly shipped: ShippedObject;
  readonly refusals: Refusals;
}

/** One request for each source file, with all functions that the fixes name in it. */
export function editRequests(recipe: Recipe): EditRequest[] {
  const byFile = new Map<string, { functions: Set<string>; adds: Set<string> }>();
  for (const { file, functions, adds } of recipe.cves) {
    const request = byFile.get(file) ?? { functions: new Set(), adds: new Set() };
    functions.forEach((name) => request.functions.add(name));
    adds.forEach((name) => request.adds.add(name));
    byFile.set(file, request);
  }
  return [...byFile].map(([file, { functions, adds }]) => ({
    file,
    functions: [...functions],
    adds: [...adds].filter((name) => !functions.has(name)),
  }));
}

/** The units that a request changes; [] when nothing changes or something speaks against it. */
export async function prepareUnits(context: BuildContext, request: EditRequest): Promise<Unit[]> {
  const { tree, fixedTree, refusals } = context;
  const commands = commandsFor(tree, request.file);
  const missing = [path.join(tree.tree, request.file), path.join(fixedTree, request.file)].some(
    (file) => !existsSync(file),
  );
  if (missing || commands.length === 0) {
    const reason = missing ? 'is not in both versions' : 'is not compiled by any command of the build';
    refusals.add('NO_COMPILE_COMMAND', `${request.file} ${reason}`);
    return [];
  }
  await checkTypes(context, request, commands[0]);
  const placed = await placeCommands(context, request, commands);
  const units = await Promise.all(placed.map((found) => prepareUnit(context, request, found)));
  return units.filter((unit) => unit !== undefined);
}

interface PlacedCommand {
  readonly command: CompileCommand;
  readonly placement: Unit['placement'];
  readonly inlined: readonly string[];
}

/** A file may be compiled several times (static and shared, several libraries); only what the object holds counts. */
async function placeCommands(
  { work, tree, shipped, refusals }: BuildContext,
  request: EditRequest,
  commands: readonly CompileCommand[],
): Promise<PlacedCommand[]> {
  const [placed, problems]: [PlacedCommand[], Set<string>] = [[], new Set()];
  const seen = new Set<string>();
  for (const command of commands) {
    const { object, inlined } = await compileUnit(work, tree, command, await readUnitSource(tree, command));
    const key = digest(object);
    if (seen.has(key)) continue;
    seen.add(key);
    const correlation = correlate(new CodeObject(object), shipped);
    if ('problem' in correlation) problems.add(correlation.detail);
    else placed.push({ command, placement: correlation.placement, inlined });
  }
  const places = new Map(placed.map((found) => [found.placement.textAddress, found]));
  if (places.size === 0) {
    const code = [...problems].some((detail) => detail.includes('places'))
      ? 'AMBIGUOUS'
      : 'NOT_FOUND_IN_OBJECT';
    refusals.add(code, `${request.file}, compiled as the distribution does: ${[...problems].join('; ')}`);
  }
  return [...places.values()];
}

async function prepareUnit(
  { work, tree, fixedTree, refusals }: BuildContext,
  request: EditRequest,
  { command, placement, inlined }: PlacedCommand,
): Promise<Unit | undefined> {
  const oldText = await readFile(path.join(tree.tree, request.file), 'utf8');
  const newText = await readFile(path.join(fixedTree, request.file), 'utf8');
  const edited = await replaceFunctions(oldText, newText, request, command.source, refusals);
  if (edited === undefined) return undefined;
  const original = await compileUnit(work, tree, command, await readUnitSource(tree, command), sectionFlags);
  let patched;
  try {
    patched = await compileUnit(work, tree, command, edited, sectionFlags);
  } catch (error) {
    if (!(error instanceof KcareError)) throw error;
    refusals.add('DOES_NOT_COMPILE', `${request.file} with the fixes: ${compilerErrors(error.message)}`);
    return undefined;
  }
  const object = new CodeObject(patched.object);
  const originalObject = new CodeObject(original.object);
  const comparison = compareObjects(originalObject, object, refusals);
  checkClones(request, placement.unit, originalObject, refusals);
  checkInlining(request, comparison, inlined, original.inlined, refusals);
  const { changed, added, removed } = comparison;
  if (changed.length + added.length + removed.length === 0) return undefined;
  return { file: request.file, patched: object, comparison, placement };
}

function compilerErrors(messages: string): string {
  const errors = [...messages.matchAll(/\berror: .*/g)].map(([line]) => line);
  return (errors.length > 0 ? errors : ['the compiler failed']).slice(0, 5).join('; ');
}

/**
 * The comparison sees inlining as it is with section flags. Where the distribution's flags inline an edited function
 * into one that does not change, the old code would live on there.
 */
export function checkInlining(
  request: EditRequest,
  comparison: Comparison,
  stock: readonly string[],
  withSections: readonly string[],
  refusals: Refusals,
): void {
  const replaced = new Set(comparison.changed.map(({ original }) => parentName(original)));
  const edited = new Set([...request.functions, ...replaced]);
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
  request: EditRequest,
  stock: CodeObject,
  withSections: CodeObject,
  refusals: Refusals,
): void {
  const known = new Set(withSections.functions.map(({ base }) => base));
  for (const part of stock.functions) {
    const source = part.base.replace(/\..*$/, '');
    if (!request.functions.includes(source) || known.has(part.base) || part.base.endsWith(coldSuffix))
      continue;
    refusals.add(
      'INLINED_ELSEWHERE',
      `the copy ${part.name} cannot be compared: section flags do not make it`,
      source,
    );
  }
}
