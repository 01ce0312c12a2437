// Refuses changes of types that running processes hold values of: for units built twice, and for fixes taken from a newer source.
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { parseSource, tokensOf, type SourceText } from './c-source.js';
import type { CodeObject } from './code-object.js';
import { parentName, type Comparison } from './compare.js';
import { sourceOf } from './compile.js';
import { directoryOf, type CompileCommand, type ConfiguredTree } from './configure.js';
import { debugFlags, readDebugInfo } from './debug-info.js';
import type { BuildContext } from './prepare-units.js';
import { convertedNames } from './patch-hooks.js';
import { run } from './run.js';
import type { EditRequest } from './source-edit.js';
import { reachedBy, shortened, typeChanges, type ComparedUnit, type TypeChange } from './type-changes.js';
import { readTypes, type UnitTypes } from './type-layouts.js';

export async function typesIn(object: string): Promise<UnitTypes> {
  return readTypes(await readDebugInfo(object));
}

const sourceName = (base: string): string => base.replace(/\..*$/, '');

/** The two compiles of a unit, whose objects with debug information are the named files. */
export async function comparedUnit(
  file: string,
  objects: { readonly original: string; readonly patched: string },
  [original, patched]: readonly [CodeObject, CodeObject],
  { changed, added, removed }: Comparison,
): Promise<ComparedUnit> {
  const replaced = [...changed.map((pair) => pair.original), ...added, ...removed];
  return {
    file,
    before: await typesIn(objects.original),
    after: await typesIn(objects.patched),
    functions: new Set(original.functions.map(({ base }) => sourceName(base))),
    replaced: new Set(replaced.map((part) => sourceName(parentName(part)))),
    usersOfVariables: usersOfVariables(original),
    converted: convertedNames(original, patched),
  };
}

function usersOfVariables(object: CodeObject): Map<string, Set<string>> {
  const users = new Map<string, Set<string>>();
  const add = (variable: string, user: string): void =>
    void users.set(variable, (users.get(variable) ?? new Set()).add(user));
  for (const part of object.functions) {
    for (const relocation of part.relocations) {
      const { reference } = object.resolve(relocation);
      const names =
        reference.kind === 'external'
          ? [reference.name]
          : reference.kind === 'data'
            ? object.symbols
                .filter(
                  ({ type, sectionIndex }) => type === 'object' && sectionIndex === reference.section.index,
                )
                .map(({ name }) => name)
            : [];
      for (const name of names) add(sourceName(name), sourceName(parentName(part)));
    }
  }
  return users;
}

/**
 * Compares the types of a unit in the running and in the fixed version. A patch is compiled with the old types, so only
 * what a fix has to do with counts: a field that the named functions use, before or after, must not be new, gone or of
 * another type, since the rest of the process goes on with the old one.
 */
export async function checkTypes(
  { work, tree, fixedTree, refusals }: BuildContext,
  request: EditRequest,
  command: CompileCommand,
): Promise<void> {
  const file = request.includedBy ?? request.file;
  const newSource = path.join(fixedTree, file);
  if (!existsSync(newSource)) return;
  let before: UnitTypes, after: UnitTypes;
  try {
    before = await typesIn(await compileForTypes(work, tree, command, sourceOf(tree, command)));
    after = await typesIn(await compileForTypes(work, tree, withTreeOf(tree, fixedTree, command), newSource));
  } catch (error) {
    if (!(error instanceof KcareError)) throw error;
    refusals.add('CHANGED_TYPE', `the types of ${file} cannot be compared: ${error.message}`);
    return;
  }
  const changes = typeChanges(before, after);
  if (changes.length === 0) return;
  const [oldText, newText] = await Promise.all(
    [tree.tree, fixedTree].map(async (root) =>
      parseSource(await readFile(path.join(root, request.file), 'utf8')),
    ),
  );
  if (!oldText || !newText) return;
  for (const name of request.functions) {
    const words = new Set([...wordsOf(oldText, name), ...wordsOf(newText, name)]);
    const reached = new Set([...reachedBy(name, before), ...reachedBy(name, after)]);
    for (const change of changes) {
      if (!reached.has(change.name)) continue;
      const members = [...change.members].filter((member) => words.has(member));
      if (members.length === 0 && (change.members.size > 0 || !mentions(words, change))) continue;
      const others = usersOf(oldText, members).filter((user) => !request.functions.includes(user));
      const also =
        others.length > 0 ? `; unchanged code of the file uses it, too: ${shortened(others).join(', ')}` : '';
      const message = `${change.name} changes in the fixed version (${change.what}), and ${name} uses it${also}`;
      refusals.add('CHANGED_TYPE', message, name);
    }
  }
}

function wordsOf({ text, functions }: SourceText, name: string): string[] {
  return functions
    .filter((candidate) => candidate.name === name)
    .flatMap(({ start, end }) => tokensOf(text.slice(start, end)));
}

const mentions = (words: ReadonlySet<string>, { name }: TypeChange): boolean =>
  words.has(name.replace(/^.*[ :]/, ''));

function usersOf({ text, functions }: SourceText, members: readonly string[]): string[] {
  return functions
    .filter(({ start, end }) => {
      const tokens = tokensOf(text.slice(start, end));
      return tokens.some(
        (token, index) => members.includes(token) && (tokens[index - 1] === '.' || tokens[index - 1] === '>'),
      );
    })
    .map(({ name }) => name);
}

/** The command with the headers of the fixed version first; those that only a configured tree has come from the old one. */
function withTreeOf(tree: ConfiguredTree, fixedTree: string, command: CompileCommand): CompileCommand {
  const directory = directoryOf(tree, command);
  const moved = (place: string): string | undefined => {
    const relative = path.relative(tree.tree, path.resolve(directory, place));
    const fixed = path.join(fixedTree, relative);
    return relative.startsWith('..') || !existsSync(fixed) ? undefined : fixed;
  };
  const ahead: string[] = ['-iquote', path.dirname(sourceOf(tree, command))];
  const flags: string[] = [];
  command.flags.forEach((flag, index) => {
    const before = command.flags[index - 1];
    const place = /^-I(.+)$/.exec(flag)?.[1] ?? (before === '-I' ? flag : undefined);
    const fixed = place === undefined ? undefined : moved(place);
    if (fixed !== undefined) ahead.push('-I', fixed);
    flags.push(before === '-include' ? (moved(flag) ?? flag) : flag);
  });
  return { ...command, flags: [...ahead, ...flags] };
}

/** Path of an object with debug information; only its types matter. Kept by command and contents of the source. */
async function compileForTypes(
  work: string,
  tree: ConfiguredTree,
  { compiler, flags, ...command }: CompileCommand,
  source: string,
): Promise<string> {
  const words = [...flags, ...debugFlags, '-w', '-iquote', path.dirname(command.source)];
  const text = await readFile(source, 'utf8');
  const hash = createHash('sha256').update(
    JSON.stringify(['types', tree.key, tree.tree, compiler, words, source, text]),
  );
  const key = hash.digest('hex');
  const directory = path.join(work, 'objects', key.slice(0, 2));
  const object = path.join(directory, `${key}.o`);
  if (existsSync(object)) return object;
  await mkdir(directory, { recursive: true });
  const temporary = path.join(directory, `part-${randomBytes(6).toString('hex')}.o`);
  try {
    await run(compiler, [...words, '-c', '-o', temporary, source], {
      directory: directoryOf(tree, { compiler, flags, ...command }),
      environment: tree.environment,
    });
    await rename(temporary, object);
  } finally {
    await rm(temporary, { force: true });
  }
  return object;
}
