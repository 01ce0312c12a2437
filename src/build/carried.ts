// Which fixes the two versions really differ in: a patch must not name one that it does not carry.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseSource, tokensOf } from './c-source.js';
import type { BuildContext } from './prepare-units.js';
import type { Fix, Recipe } from './recipe.js';
import { macrosOf } from './source-macros.js';

/** Ids of fixes of which no function and no macro differs between the versions. */
export async function missingFixes({ tree, fixedTree }: BuildContext, { cves }: Recipe): Promise<string[]> {
  const texts = new Map<string, Map<string, string>>();
  const definitions = async (root: string, file: string): Promise<Map<string, string>> => {
    const place = path.join(root, file);
    const known = texts.get(place) ?? (await definitionsIn(place));
    texts.set(place, known);
    return known;
  };
  const isCarried = async (fix: Fix): Promise<boolean> => {
    for (const { file, functions, macros } of [fix, ...fix.also]) {
      const before = await definitions(tree.tree, file);
      const after = await definitions(fixedTree, file);
      if ([...functions, ...macros].some((name) => before.get(name) !== after.get(name))) return true;
    }
    return false;
  };
  const missing: string[] = [];
  for (const fix of cves) if (!(await isCarried(fix))) missing.push(fix.id);
  return missing;
}

/** Tokens of all functions and macros of a file, by name. */
async function definitionsIn(place: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  if (!existsSync(place)) return found;
  const text = await readFile(place, 'utf8');
  const { functions } = await parseSource(text);
  for (const { name, start, end } of [...functions, ...macrosOf(text)])
    found.set(name, `${found.get(name) ?? ''}\n${tokensOf(text.slice(start, end)).join(' ')}`);
  return found;
}
