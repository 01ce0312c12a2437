// Refuses fixes that come with a changed structure: running processes hold objects of the old layout.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseSource, tokensOf } from './c-source.js';
import type { CompileCommand } from './configure.js';
import type { BuildContext } from './prepare-units.js';
import { run } from './run.js';
import type { EditRequest } from './source-edit.js';

/** Bodies of all structures, unions and enumerations in `text` that have a name, as token texts. */
export function typeBodies(text: string): Map<string, string> {
  const bodies = new Map<string, string>();
  const tokens = tokensOf(text);
  for (let index = 0; index < tokens.length; index++) {
    const kind = tokens[index] ?? '';
    if (kind !== 'struct' && kind !== 'union' && kind !== 'enum') continue;
    const tag = /^\w+$/.test(tokens[index + 1] ?? '') ? tokens[index + 1] : undefined;
    const open = index + (tag === undefined ? 1 : 2);
    if (tokens[open] !== '{') continue;
    const close = closingBrace(tokens, open);
    const alias = tokens[close + 1];
    const body = tokens
      .slice(open, close + 1)
      .join(' ')
      .replaceAll(', }', '}')
      .replaceAll(' }', '}');
    if (tag !== undefined) bodies.set(`${kind} ${tag}`, body);
    else if (alias !== undefined && /^\w+$/.test(alias)) bodies.set(`${kind} ${alias}`, body);
  }
  return bodies;
}

function closingBrace(tokens: readonly string[], open: number): number {
  let depth = 0;
  for (let index = open; index < tokens.length; index++) {
    if (tokens[index] === '{') depth++;
    if (tokens[index] === '}' && --depth === 0) return index;
  }
  return tokens.length - 1;
}

/** Names of fields and enumerators in a body; crude, but only names that changed matter. */
const namesIn = (body: string): string[] => body.match(/[A-Za-z_]\w*/g) ?? [];

/** Compares the types that a fixed function may touch, in its file and in all headers of the tree that it includes. */
export async function checkTypes(
  { tree, fixedTree, refusals }: BuildContext,
  request: EditRequest,
  command: CompileCommand | undefined,
): Promise<void> {
  if (!command) return;
  const listing = await run(command.compiler, [...command.flags, '-MM', command.source], {
    directory: tree.buildDirectory,
    environment: tree.environment,
  });
  const headers = listing
    .split(/[\s\\]+/)
    .filter((word) => /\.[ch]$/.test(word))
    .map((word) => path.relative(tree.tree, path.resolve(tree.buildDirectory, word)))
    .filter((file) => !file.startsWith('..'));
  const newText = await readFile(path.join(fixedTree, request.file), 'utf8');
  const { functions } = await parseSource(newText);
  const wanted = functions.filter(({ name }) => request.functions.includes(name));
  for (const file of new Set([request.file, ...headers])) {
    const [before, after] = [path.join(tree.tree, file), path.join(fixedTree, file)];
    if (!existsSync(before) || !existsSync(after)) continue;
    const [oldBodies, newBodies] = [
      typeBodies(await readFile(before, 'utf8')),
      typeBodies(await readFile(after, 'utf8')),
    ];
    for (const [type, oldBody] of oldBodies) {
      const newBody = newBodies.get(type);
      if (newBody === undefined || newBody === oldBody || isEnumExtension(type, oldBody, newBody)) continue;
      const [, tag = ''] = type.split(' ');
      const moved = new Set([tag, ...changedNames(oldBody, newBody), ...aliasesOf(tag)]);
      for (const { name, start, end } of wanted) {
        const uses = namesIn(newText.slice(start, end)).some((word) => moved.has(word));
        if (uses)
          refusals.add('CHANGED_TYPE', `${type} of ${file} has another layout in the fixed version`, name);
      }
    }
  }
}

/** An enumeration that only grew at its end keeps all values. */
function isEnumExtension(type: string, oldBody: string, newBody: string): boolean {
  return type.startsWith('enum ') && newBody.startsWith(oldBody.slice(0, -1));
}

function changedNames(oldBody: string, newBody: string): string[] {
  const [before, after] = [new Set(namesIn(oldBody)), new Set(namesIn(newBody))];
  return [...before, ...after].filter((name) => before.has(name) !== after.has(name));
}

/** `evp_pkey_st` is used as EVP_PKEY, `x_st` as X: the house style of OpenSSL and others. */
function aliasesOf(tag: string): string[] {
  const stem = tag.replace(/_(?:st|t|s)$/, '');
  return stem === tag ? [] : [stem, stem.toUpperCase()];
}
