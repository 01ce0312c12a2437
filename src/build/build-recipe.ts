// Recipe → patch file: the stages of a build in their order.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileExtension, readPatch, writePatch } from '../patchfile/index.js';
import { assemblePatch } from './assemble.js';
import { availableVersions, unpackBinary, unpackSource } from './archive.js';
import { configureTree } from './configure.js';
import { findDefinitions } from './find-definitions.js';
import { editRequests, prepareUnits, type BuildContext } from './prepare-units.js';
import { readRecipe, selectFixes, type Recipe } from './recipe.js';
import { builderName, ResultCache, writeWhole, type KeptResult } from './result-cache.js';
import { Refusals, type BuildResult } from './result.js';
import { ShippedObject } from './shipped-object.js';
import { defaultWorkDirectory } from './work-directory.js';

export interface BuildOptions {
  /** Ids of the fixes to build; all when empty or absent. */
  readonly cves?: readonly string[];
  /** Work directory; see defaultWorkDirectory. */
  readonly work?: string;
  /** Directory for the patch file; `patches` in the work directory by default. */
  readonly output?: string;
  /** Build again although nothing changed. */
  readonly force?: boolean;
  /** Called with one line for each stage, when it begins. */
  readonly onProgress?: (message: string) => void;
}

/**
 * Builds the one cumulative patch of a recipe. Refusals are a result, not an error; KcareErrors are thrown for a
 * malformed recipe, an archive out of reach and failing tools. Two builds of the same recipe give the same bytes.
 */
export async function buildRecipe(recipeFile: string, options: BuildOptions = {}): Promise<BuildResult> {
  const { cves = [], work = defaultWorkDirectory(), onProgress: tell = () => undefined } = options;
  const { recipe: whole, text } = await readRecipe(recipeFile);
  const recipe = selectFixes(whole, cves);
  const cache = new ResultCache(work, text, cves);
  let kept = options.force === true ? undefined : await cache.read();
  if (!kept) {
    kept = await build(recipe, work, tell);
    await cache.write(kept);
  }
  const { binary, object } = recipe.package;
  const root = await unpackBinary(work, binary, kept.versions.runs);
  const result = {
    outcome: kept.outcome,
    refusals: kept.refusals,
    object: { path: path.join(root, object), root },
    versions: kept.versions,
  };
  if (!kept.patch) return result;
  const file = path.join(options.output ?? path.join(work, 'patches'), patchFileName(recipe, whole));
  await writeWhole(file, kept.patch);
  return { ...result, file, patch: readPatch(kept.patch) };
}

/** A selection of fixes gets a name of its own: it must not be taken for the whole patch. */
function patchFileName(recipe: Recipe, whole: Recipe): string {
  const ids = recipe.cves.map(({ id }) => id).sort();
  const selection = createHash('sha256').update(ids.join()).digest('hex').slice(0, 8);
  const suffix = ids.length === whole.cves.length ? '' : `-only-${selection}`;
  return `${recipe.name}-${recipe.runs.replaceAll(/[:~]/g, '-')}-level${recipe.level}${suffix}${fileExtension}`;
}

async function build(recipe: Recipe, work: string, tell: (message: string) => void): Promise<KeptResult> {
  const { package: names } = recipe;
  tell('choosing versions');
  const versions = await availableVersions(work, names, recipe);
  tell(`fetching ${names.binary} and ${names.source} ${versions.runs}, ${names.source} ${versions.fixed}`);
  const root = await unpackBinary(work, names.binary, versions.runs);
  const fixedTree = await unpackSource(work, names.source, versions.fixed);
  const shipped = new ShippedObject(await readFile(path.join(root, names.object)), names.object);
  tell('configuring the source of the running version');
  const tree = await configureTree(work, recipe, versions.runs);
  const refusals = new Refusals();
  const context: BuildContext = { work, tree, fixedTree, shipped, refusals };
  tell('editing, compiling and comparing units, finding them in the shipped object');
  const units = await inPairs(editRequests(recipe), (request) => prepareUnits(context, request));
  tell('finding further symbols');
  const found = await findDefinitions(units, context);
  const objections = refusals.all;
  if (objections.length > 0) return { outcome: 'refused', refusals: objections, versions, patch: undefined };
  if (units.length === 0) return { outcome: 'unchanged', refusals: [], versions, patch: undefined };
  tell('linking the patch');
  const patch = assemblePatch(units, shipped, found, { recipe, versions, builder: builderName() }, refusals);
  const reasons = refusals.all;
  if (reasons.length > 0) return { outcome: 'refused', refusals: reasons, versions, patch: undefined };
  return { outcome: 'built', refusals: [], versions, patch: writePatch(patch) };
}

/** Runs two at a time, as many as compilers should run beside each other on small machines; keeps the order. */
async function inPairs<T, R>(items: readonly T[], action: (item: T) => Promise<R[]>): Promise<R[]> {
  const results = new Map<number, R[]>();
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) {
      const item = items[index];
      if (item !== undefined) results.set(index, await action(item));
    }
  };
  await Promise.all([worker(), worker()]);
  return items.flatMap((_, index) => results.get(index) ?? []);
}
