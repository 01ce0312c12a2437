// Recipe → patch file: the stages of a build in their order.
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { fileExtension, readPatch, writePatch } from '../patchfile/index.js';
import { availableVersions, exactVersion, unpackBinary, unpackFixedSource } from './archive.js';
import { configureTree } from './configure.js';
import { makePatch } from './make-patch.js';
import { readRecipe, selectFixes, type Recipe } from './recipe.js';
import { builderName, ResultCache, writeWhole, type KeptResult } from './result-cache.js';
import { Refusals, type BuildResult } from './result.js';
import { ShippedObject } from './shipped-object.js';
import { compareVersions } from './versions.js';
import { defaultWorkDirectory } from './work-directory.js';

export interface BuildOptions {
  /** Ids of the fixes to build; all when empty or absent. */
  readonly cves?: readonly string[];
  /** Build for exactly this version, instead of the one that the recipe names. */
  readonly runs?: string;
  /** Work directory; see defaultWorkDirectory. */
  readonly work?: string;
  /** Directory for the patch file; `patches` in the work directory by default. */
  readonly output?: string;
  /** Folder with the fixed sources, instead of those of the archive or of the recipe's own folder. */
  readonly fixedSource?: string;
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
  const selected = selectFixes(whole, cves);
  const recipe = options.runs === undefined ? selected : { ...selected, runs: options.runs };
  const folder = await fixedFolder(recipeFile, recipe, options.fixedSource);
  const cache = new ResultCache(work, `${options.runs ?? ''}\n${text}`, cves);
  // What a folder holds may change.
  let kept = options.force === true || folder !== undefined ? undefined : await cache.read();
  if (!kept) {
    kept = await build(recipe, { work, folder, tell, isExact: options.runs !== undefined });
    if (folder === undefined) await cache.write(kept);
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

interface BuildPlace {
  readonly work: string;
  /** Of the fixed sources; the archive's when undefined. */
  readonly folder: string | undefined;
  /** The running version was asked for, and is not that of the recipe. */
  readonly isExact: boolean;
  readonly tell: (message: string) => void;
}

/** The folder of fixed sources, absolute: of the caller, else of the recipe, beside which it is looked for. */
async function fixedFolder(recipeFile: string, recipe: Recipe, given?: string): Promise<string | undefined> {
  const named = given ?? (recipe.fixedSource && path.join(path.dirname(recipeFile), recipe.fixedSource));
  if (named === undefined) return undefined;
  const folder = path.resolve(named);
  const isFolder = await stat(folder)
    .then((found) => found.isDirectory())
    .catch(() => false);
  if (!isFolder)
    throw new KcareError('USAGE', `${folder}, the folder of the fixed sources, is no directory.`);
  return folder;
}

async function build(recipe: Recipe, { work, folder, tell, isExact }: BuildPlace): Promise<KeptResult> {
  const { package: names } = recipe;
  tell('choosing versions');
  const versions = await (isExact ? exactVersion : availableVersions)(work, names, recipe, folder);
  // Of a version that has the fixes, only the running one is of interest.
  if (compareVersions(versions.runs, versions.fixed) >= 0)
    return { outcome: 'unchanged', refusals: [], versions, patch: undefined };
  tell(`fetching ${names.binary} and ${names.source} ${versions.runs}, ${names.source} ${versions.fixed}`);
  const root = await unpackBinary(work, names.binary, versions.runs);
  const fixedTree = folder ?? (await fetchFixed(work, names.source, versions.fixed, tell));
  const shipped = new ShippedObject(await readFile(path.join(root, names.object)), names.object);
  tell('configuring the source of the running version');
  const tree = await configureTree(work, recipe, versions.runs);
  const context = { work, tree, fixedTree, shipped, refusals: new Refusals() };
  // For another version than the recipe's, some fixes may be there already.
  const standIn = { ...versions, substituted: versions.substituted || isExact };
  const facts = { recipe, versions: standIn, builder: builderName() };
  const { outcome, refusals, patch } = await makePatch(context, facts, tell);
  return { outcome, refusals, versions, patch: patch && writePatch(patch) };
}

async function fetchFixed(
  work: string,
  source: string,
  version: string,
  tell: (message: string) => void,
): Promise<string> {
  const { tree, isUpstream } = await unpackFixedSource(work, source, version);
  if (isUpstream) tell(`the source package of ${version} is not to be had; taking upstream's tarball of it`);
  return tree;
}
