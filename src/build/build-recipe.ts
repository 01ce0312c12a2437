// Recipe → patch file: the stages of a build in their order.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileExtension, readPatch, writePatch } from '../patchfile/index.js';
import { availableVersions, unpackBinary, unpackSource } from './archive.js';
import { configureTree } from './configure.js';
import { makePatch } from './make-patch.js';
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
  const context = { work, tree, fixedTree, shipped, refusals: new Refusals() };
  const facts = { recipe, versions, builder: builderName() };
  const { outcome, refusals, patch } = await makePatch(context, facts, tell);
  return { outcome, refusals, versions, patch: patch && writePatch(patch) };
}
