// Units → patch: the part of a build that starts when everything is fetched and configured.
import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { Patch } from '../patchfile/index.js';
import { assemblePatch, type PatchFacts } from './assemble.js';
import { missingFixes } from './carried.js';
import { findDefinitions } from './find-definitions.js';
import { editRequests, prepareUnits, type BuildContext } from './prepare-units.js';
import { independentFunctions, markIndependent } from './independence.js';
import type { Recipe } from './recipe.js';
import type { Refusal } from './result.js';
import { changedSignatures, checkCallers } from './signatures.js';

export interface MadePatch {
  readonly outcome: 'built' | 'refused' | 'unchanged';
  readonly refusals: readonly Refusal[];
  readonly patch: Patch | undefined;
}

export interface RecipeFacts {
  readonly recipe: Recipe;
  readonly versions: { readonly runs: string; readonly fixed: string; readonly substituted?: boolean };
  readonly builder: string;
}

/** Makes the patch of all fixes of a recipe; refusals of `context` are collected over all stages. */
export async function makePatch(
  context: BuildContext,
  wanted: RecipeFacts,
  tell: (message: string) => void = () => undefined,
): Promise<MadePatch> {
  const { refusals } = context;
  const facts = { ...wanted, recipe: await withoutMissing(context, wanted) };
  tell('editing, compiling and comparing units, finding them in the shipped object');
  const requests = editRequests(facts.recipe);
  const signatures = await changedSignatures(context, requests);
  const independent = independentFunctions(facts.recipe);
  const units = await atOnce(requests, (request) => prepareUnits(context, request, signatures));
  checkCallers(signatures, units, context.shipped, independent, refusals);
  tell('finding further symbols');
  const found = await findDefinitions(units, context);
  tell('linking the patch');
  const assembled =
    units.length > 0 ? assemblePatch(units, context.shipped, found, patchFacts(facts), refusals) : undefined;
  const patch = assembled && (await markIndependent(assembled, independent, refusals));
  const reasons = refusals.all;
  if (reasons.length > 0) return { outcome: 'refused', refusals: reasons, patch: undefined };
  return { outcome: patch ? 'built' : 'unchanged', refusals: [], patch };
}

function patchFacts({ recipe, versions, builder }: RecipeFacts): PatchFacts {
  return {
    name: recipe.name,
    level: recipe.level,
    description: recipe.description,
    cves: recipe.cves.map(({ id, description, score, url }) => ({ id, description, score, url })),
    package: recipe.package.binary,
    packageVersion: versions.runs,
    fixedVersion: versions.fixed,
    objectName: path.basename(recipe.package.object),
    date: recipe.date,
    builder,
  };
}

/**
 * The recipe without fixes that the versions do not differ in, so that the patch does not name them (R6): where other
 * versions stand in for those of the recipe. Otherwise the recipe is wrong, and each is refused.
 */
async function withoutMissing(context: BuildContext, { recipe, versions }: RecipeFacts): Promise<Recipe> {
  const missing = await missingFixes(context, recipe);
  if (missing.length === 0 || missing.length === recipe.cves.length) return recipe;
  if (versions.substituted === true)
    return { ...recipe, cves: recipe.cves.filter(({ id }) => !missing.includes(id)) };
  for (const id of missing) {
    const message = `nothing that ${id} names differs between ${versions.runs} and ${versions.fixed}`;
    context.refusals.add('SAME_SOURCE', message);
  }
  return recipe;
}

/** Runs one for each processor at a time, and at least two; keeps the order. */
async function atOnce<T, R>(items: readonly T[], action: (item: T) => Promise<R[]>): Promise<R[]> {
  const results = new Map<number, R[]>();
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) {
      const item = items[index];
      if (item !== undefined) results.set(index, await action(item));
    }
  };
  await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, worker));
  return items.flatMap((_, index) => results.get(index) ?? []);
}
