// The changed texts of units: by a recipe, which names functions of a newer source, or by a diff.
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseSource, tokensOf, typeDefinitions } from '../build/c-source.js';
import { Refusals } from '../build/result.js';
import { replaceFunctions } from '../build/source-edit.js';
import { keepLineNumbers } from '../make/line-numbers.js';
import { applyPatches, lineOrigins } from '../make/source-patches.js';
import type { KernelRefusals } from './compare-kernel.js';
import type { KernelEdit, KernelRecipe } from './kernel-recipe.js';
import { readTreeFile } from './kernel-unit.js';

/** Original and changed text of each unit that differs in more than comments, white space and line numbers. */
export type ChangedTexts = ReadonlyMap<string, { readonly before: string; readonly after: string }>;

export const filesOf = ({ cves }: KernelRecipe): string[] => [
  ...new Set(cves.flatMap((fix) => [fix, ...fix.also]).map(({ file }) => file)),
];

/** `fixed` holds the texts of the newer source. */
export async function editByRecipe(
  tree: string,
  recipe: KernelRecipe,
  fixed: ReadonlyMap<string, string>,
  refusals: KernelRefusals,
): Promise<ChangedTexts> {
  const texts = new Map<string, { before: string; after: string }>();
  for (const file of filesOf(recipe)) {
    const edits: KernelEdit[] = recipe.cves
      .flatMap((fix) => [fix, ...fix.also])
      .filter((edit) => edit.file === file);
    const all = (pick: (edit: KernelEdit) => readonly string[]): string[] => [
      ...new Set(edits.flatMap(pick)),
    ];
    const newText = fixed.get(file);
    if (newText === undefined || !existsSync(path.join(tree, file))) {
      refusals.add('NO_COMPILE_COMMAND', `${file} is not in both versions of the source`);
      continue;
    }
    const request = {
      file,
      functions: all(({ functions }) => functions),
      adds: all(({ adds }) => adds),
      macros: all(({ macros }) => macros),
    };
    const before = await readTreeFile(tree, file);
    const reasons = new Refusals();
    const after = await replaceFunctions(before, newText, request, file, reasons);
    for (const { code, message, function: name } of reasons.all) refusals.add(code, message, name);
    if (after !== undefined) texts.set(file, { before, after });
  }
  return texts;
}

/** Files that a unified diff names, without their first directory; new ones apart. */
export function filesOfDiff(diff: string): { changed: string[]; added: string[] } {
  const [changed, added] = [new Set<string>(), new Set<string>()];
  for (const [, from = '', to = ''] of diff.matchAll(/^--- (\S+).*\n\+\+\+ (\S+)/gm)) {
    const name = (to === '/dev/null' ? from : to).replace(/^[^/]+\//, '');
    (from === '/dev/null' ? added : changed).add(name);
  }
  return { changed: [...changed], added: [...added] };
}

/** What no kernel is made of. */
const isNoCode = (file: string): boolean => /^(?:Documentation|tools|samples|LICENSES)\/|^[A-Z]+$/.test(file);

/** Throws SOURCE_PATCH_REJECTED. */
export async function editByDiff(
  tree: string,
  diffFile: string,
  diff: string,
  refusals: KernelRefusals,
): Promise<ChangedTexts> {
  const { changed, added } = filesOfDiff(diff);
  const units = changed.filter((file) => file.endsWith('.c'));
  for (const file of changed.filter((name) => !name.endsWith('.c') && !isNoCode(name)))
    refusals.add('KERNEL_HEADER', `${file} is part of many units`);
  for (const file of added.filter((name) => !isNoCode(name))) refusals.add('NEW_SOURCE', `${file} is new`);
  const directory = await mkdtemp(path.join(tmpdir(), 'kcare-diff-'));
  try {
    for (const file of changed.filter((name) => existsSync(path.join(tree, name)))) {
      const copy = path.join(directory, file);
      await mkdir(path.dirname(copy), { recursive: true });
      await copyFile(path.join(tree, file), copy);
    }
    const own = path.join(directory, '.diff');
    await writeFile(
      own,
      withoutOthers(diff, (file) => !isNoCode(file)),
    );
    await applyPatches([{ file: own, text: diff, date: '' }], directory).catch((error: unknown) => {
      if (error instanceof Error)
        error.message = error.message.replaceAll(own, diffFile).replace('.diff', path.basename(diffFile));
      throw error;
    });
    const texts = new Map<string, { before: string; after: string }>();
    for (const file of units) {
      const before = await readTreeFile(tree, file);
      const patched = await readFile(path.join(directory, file), 'utf8');
      if (tokensOf(before).join(' ') === tokensOf(patched).join(' ')) continue;
      await compareHeads(before, patched, refusals);
      await compareTypes(before, patched, refusals);
      const origins = await lineOrigins(path.join(tree, file), path.join(directory, file));
      texts.set(file, { before, after: keepLineNumbers(patched, origins) });
    }
    return texts;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The parts of a diff that are about files that `isWanted` says. */
function withoutOthers(diff: string, isWanted: (file: string) => boolean): string {
  const parts = diff.split(/^(?=--- \S+.*\n\+\+\+ )/m);
  return parts
    .filter((part, index) => {
      const { changed, added } = filesOfDiff(part);
      return index === 0
        ? changed.length + added.length > 0 && [...changed, ...added].every(isWanted)
        : [...changed, ...added].every(isWanted);
    })
    .join('');
}

/** The running kernel may hold values of every type that the unit defines. */
async function compareTypes(before: string, after: string, refusals: KernelRefusals): Promise<void> {
  const [old, fresh] = [await typeDefinitions(before), await typeDefinitions(after)];
  for (const [name, body] of fresh) {
    const previous = old.get(name);
    if (previous !== undefined && previous !== body)
      refusals.add(
        'CHANGED_TYPE',
        `the definition of ${name} changed, of which the running kernel may hold values`,
      );
  }
}

/** Functions that other units may call keep their heads. */
async function compareHeads(before: string, after: string, refusals: KernelRefusals): Promise<void> {
  const heads = async (text: string): Promise<Map<string, string>> => {
    const { functions } = await parseSource(text);
    return new Map(
      functions.map(({ name, start, body }) => [name, tokensOf(text.slice(start, body)).join(' ')]),
    );
  };
  const [old, fresh] = [await heads(before), await heads(after)];
  for (const [name, head] of fresh) {
    const previous = old.get(name);
    if (previous === undefined || previous === head || /\bstatic\b/.test(previous)) continue;
    if (new RegExp(`\\bEXPORT_SYMBOL(?:_GPL|_NS|_NS_GPL)?\\s*\\(\\s*${name}\\b`).test(before))
      refusals.add(
        'KERNEL_ABI',
        `the parameters or the result of ${name} changed, which modules may call`,
        name,
      );
    else
      refusals.add(
        'CHANGED_SIGNATURE',
        `the parameters or the result of ${name} changed, and other units may call it`,
        name,
      );
  }
}
