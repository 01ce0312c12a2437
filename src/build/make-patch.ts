// Units → patch: the part of a build that starts when everything is fetched and configured.
import type { Patch } from '../patchfile/index.js';
import { assemblePatch, type AssemblyFacts } from './assemble.js';
import { findDefinitions } from './find-definitions.js';
import { editRequests, prepareUnits, type BuildContext } from './prepare-units.js';
import type { Refusal } from './result.js';

export interface MadePatch {
  readonly outcome: 'built' | 'refused' | 'unchanged';
  readonly refusals: readonly Refusal[];
  readonly patch: Patch | undefined;
}

/** Makes the patch of all fixes of a recipe; refusals of `context` are collected over all stages. */
export async function makePatch(
  context: BuildContext,
  facts: AssemblyFacts,
  tell: (message: string) => void = () => undefined,
): Promise<MadePatch> {
  const { refusals } = context;
  tell('editing, compiling and comparing units, finding them in the shipped object');
  const units = await inPairs(editRequests(facts.recipe), (request) => prepareUnits(context, request));
  tell('finding further symbols');
  const found = await findDefinitions(units, context);
  tell('linking the patch');
  const patch = units.length > 0 ? assemblePatch(units, context.shipped, found, facts, refusals) : undefined;
  const reasons = refusals.all;
  if (reasons.length > 0) return { outcome: 'refused', refusals: reasons, patch: undefined };
  return { outcome: patch ? 'built' : 'unchanged', refusals: [], patch };
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
