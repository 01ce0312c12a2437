// Turns a recipe's fixes into units: edits, compiles and compares them, and finds them in the shipped object.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';
import { parseSource } from './c-source.js';
import { CodeObject, digest } from './code-object.js';
import { compareUnit } from './compare-unit.js';
import {
  commandsFor,
  compileUnit,
  isLinkTimeOptimized,
  readUnitSource,
  sectionFlags,
  sourceOf,
} from './compile.js';
import { directoryOf, type CompileCommand, type ConfiguredTree } from './configure.js';
import { correlate } from './correlate.js';
import type { Recipe } from './recipe.js';
import type { Refusals } from './result.js';
import type { ChangedSignature } from './signatures.js';
import type { ShippedObject } from './shipped-object.js';
import { replaceFunctions, replaceInclude, type EditRequest } from './source-edit.js';
import { readHeaders } from './source-headers.js';
import { checkMacros, macrosOf } from './source-macros.js';
import { checkTypes } from './type-check.js';
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
  const byFile = new Map<
    string,
    { includedBy?: string | undefined; functions: Set<string>; adds: Set<string>; macros: Set<string> }
  >();
  for (const edit of recipe.cves.flatMap((fix) => [fix, ...fix.also])) {
    const { file, includedBy } = edit;
    const request = byFile.get(file) ?? {
      includedBy,
      functions: new Set(),
      adds: new Set(),
      macros: new Set(),
    };
    edit.functions.forEach((name) => request.functions.add(name));
    edit.adds.forEach((name) => request.adds.add(name));
    edit.macros.forEach((name) => request.macros.add(name));
    byFile.set(file, request);
  }
  const updatesOf = (file: string): string[] =>
    recipe.cves
      .flatMap((fix) => [fix, ...fix.also])
      .flatMap((edit) => (edit.file === file ? (edit.update ?? []) : []));
  return [...byFile].map(([file, { includedBy, functions, adds, macros }]) => ({
    file,
    updates: [...new Set(updatesOf(file))],
    includedBy,
    functions: [...functions],
    adds: [...adds].filter((name) => !functions.has(name)),
    macros: [...macros],
  }));
}

/**
 * The units that a request changes; [] when nothing changes or something speaks against it. `signatures` are those that
 * all requests together change.
 */
export async function prepareUnits(
  context: BuildContext,
  request: EditRequest,
  signatures: readonly ChangedSignature[],
): Promise<Unit[]> {
  const { tree, fixedTree, refusals } = context;
  const commands = commandsFor(tree, request.includedBy ?? request.file);
  const missing = [path.join(tree.tree, request.file), path.join(fixedTree, request.file)].some(
    (file) => !existsSync(file),
  );
  if (missing || commands.length === 0) {
    const reason = missing ? 'is not in both versions' : 'is not compiled by any command of the build';
    refusals.add('NO_COMPILE_COMMAND', `${request.file} ${reason}`);
    return [];
  }
  if (commands.some(({ flags }) => isLinkTimeOptimized(flags))) {
    refusals.add('LINK_TIME_OPTIMIZATION', `${request.file} is compiled with -flto`);
    return [];
  }
  const placed = await placeCommands(context, request, commands);
  if (placed[0]) await checkTypes(context, request, placed[0].command);
  const units = await Promise.all(placed.map((found) => prepareUnit(context, request, found, signatures)));
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
  signatures: readonly ChangedSignature[],
): Promise<Unit | undefined> {
  const oldText = await readFile(path.join(tree.tree, request.file), 'utf8');
  const newText = await readFile(path.join(fixedTree, request.file), 'utf8');
  const file = path.join(tree.tree, request.file);
  const spelling = request.includedBy ? path.relative(directoryOf(tree, command), file) : command.source;
  const headers = await readHeaders(tree, fixedTree, command);
  await checkTakenMacros(request, [oldText, ...headers.before], [newText, ...headers.after], refusals);
  const edit = {
    signatures: signatures.filter(({ isLocal, file: own }) => !isLocal || own === request.file),
    headers: headers.after,
  };
  const text = await replaceFunctions(oldText, newText, request, spelling, refusals, edit);
  if (text === undefined) return undefined;
  const edited = request.includedBy
    ? replaceInclude(await readFile(sourceOf(tree, command), 'utf8'), command.source, request.file, text)
    : text;
  if (edited === undefined) {
    refusals.add('SOURCE_FUNCTION', `${request.includedBy ?? ''} does not include ${request.file}`);
    return undefined;
  }
  const original = await compileUnit(work, tree, command, await readUnitSource(tree, command), sectionFlags);
  let patched;
  try {
    const { updates = [] } = request;
    const text = [edited, ...updates].join('\n#line 1 "update.c"\n');
    const header = updates.length > 0 ? ['-idirafter', path.join(packageRoot(), 'include')] : [];
    patched = await compileUnit(work, tree, command, text, [...sectionFlags, ...header]);
  } catch (error) {
    if (!(error instanceof KcareError)) throw error;
    refusals.add('DOES_NOT_COMPILE', `${request.file} with the fixes: ${compilerErrors(error.message)}`);
    return undefined;
  }
  const compiles = {
    placement,
    inlined,
    original: { object: new CodeObject(original.object), inlined: original.inlined },
    patched: new CodeObject(patched.object),
  };
  return compareUnit(request.file, compiles, request.functions, refusals);
}

async function checkTakenMacros(
  request: EditRequest,
  before: readonly string[],
  after: readonly string[],
  refusals: Refusals,
): Promise<void> {
  const { text, functions } = await parseSource(after[0] ?? '');
  const names = new Set([...request.functions, ...request.adds]);
  const definitions = [
    ...functions.filter(({ name }) => names.has(name)),
    ...macrosOf(text).filter(({ name }) => request.macros.includes(name)),
  ];
  const taken = new Map<string, string>();
  for (const { name, start, end } of definitions)
    taken.set(name, `${taken.get(name) ?? ''}\n${text.slice(start, end)}`);
  checkMacros(request, { before, after, taken }, refusals);
}

export function compilerErrors(messages: string): string {
  const errors = [...messages.matchAll(/\berror: .*/g)].map(([line]) => line);
  return (errors.length > 0 ? errors : ['the compiler failed']).slice(0, 5).join('; ');
}
