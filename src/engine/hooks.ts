// Runs hooks of patches in idle threads of the process, and plans the update functions that a commit runs.
import { setTimeout as sleep } from 'node:timers/promises';
import { nativeEngine } from '../addon/index.js';
import type { HeldFunction } from '../addon/types.js';
import { advance } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { hookLayout, type ImageHeader, type ImageHook } from '../link/index.js';
import type { HookKind, Patch } from '../patchfile/index.js';
import { isHooked, isMarked, markOf, recordOf, updatesInEffect, type HookedImage } from './hook-marks.js';
import { codeOf, hookResult, markingRun, writeMark, writeRuns, writeState, type Run } from './hook-record.js';
import { isSpent } from './image-check.js';
import { idlenessJudge } from './idle-threads.js';
import type { Pauses } from './pauses.js';
import type { PendingHook } from './report.js';
import type { Target } from './target.js';

const passTimeoutMs = 500;
const longestHookWaitMs = 2000;
const firstDelayMs = 1;
const longestDelayMs = 250;

/** What the hooks of one object have to do with in one commit. */
export interface HookTransition {
  readonly present: readonly ImageHeader[];
  readonly next: ImageHeader | undefined;
}

/**
 * Runs the hooks of `kind` that were not run yet, in their order. Throws PATCH_DECLINED when one before the apply returns
 * something else than 0, TARGET_BUSY when no thread comes to a place where it can be borrowed, or does not return.
 */
export async function runHooks(
  target: Target,
  image: ImageHeader,
  kind: HookKind,
  waitMs: number,
  pauses: Pauses,
): Promise<void> {
  if (!isHooked(image)) return;
  const deadline = performance.now() + Math.min(waitMs, longestHookWaitMs);
  for (const hook of image.hooks) {
    if (hook.kind !== kind || isMarked(target.read, image, hook)) continue;
    await runHook(target, image, hook, deadline, pauses);
    if (kind === 'before-apply' && hookResult(target, image) !== 0) throw declined(target, image, hook);
  }
}

async function runHook(
  target: Target,
  image: HookedImage,
  hook: ImageHook,
  deadline: number,
  pauses: Pauses,
): Promise<void> {
  const { pid } = target;
  const judge = idlenessJudge(target);
  for (let delay = firstDelayMs; ; delay = Math.min(delay * 2, longestDelayMs)) {
    writeRuns(target, image, [{ function: hook.function, mark: markOf(image, hook), value: 1 }]);
    writeState(target, image, 'asked');
    const outcome = nativeEngine.callFunction(
      pid,
      { function: codeOf(image), arguments: [recordOf(image)], stackDepth: hookLayout.stackDepth },
      { signalReturn: target.signalReturn(), timeoutMs: passTimeoutMs, choose: judge },
    );
    if (outcome.outcome === 'gone') throw new KcareError('TARGET_GONE', `process ${pid} ended`, { pid });
    const what = `hook ${hook.name} (${hook.kind})`;
    if (outcome.outcome === 'unfinished')
      throw new KcareError('TARGET_BUSY', `process ${pid}: ${what} did not return in time`, { pid });
    writeState(target, image, 'idle');
    if (outcome.outcome === 'returned') {
      pauses.add(outcome.wasRunning ? outcome.pauseNs : 0, outcome.pauseNs);
      return;
    }
    if (performance.now() + delay > deadline) {
      const text = `process ${pid}: no thread came to a place where it can run ${what}`;
      throw new KcareError('TARGET_BUSY', text, { pid });
    }
    await sleep(delay);
  }
}

function declined(target: Target, image: HookedImage, { name }: ImageHook): KcareError {
  const { pid } = target;
  const result = hookResult(target, image);
  return new KcareError(
    'PATCH_DECLINED',
    `process ${pid}: ${name} of the patch of ${image.description.objectName} returned ${result}, so nothing was changed`,
    { pid, hook: name, result },
  );
}

/** What could not be run is in the result; the next update runs it. */
export async function runAfterApply(
  target: Target,
  images: readonly ImageHeader[],
  waitMs: number,
  pauses: Pauses,
): Promise<PendingHook[]> {
  const pending: PendingHook[] = [];
  for (const image of images) {
    try {
      await runHooks(target, image, 'after-apply', waitMs, pauses);
    } catch (thrown) {
      if (!(thrown instanceof KcareError) || thrown.code !== 'TARGET_BUSY') throw thrown;
      pending.push({ objectName: image.description.objectName, reason: thrown.message });
    }
  }
  return pending;
}

/** Every update function of an active image has done its work. */
export function isUpdated(target: Target, image: ImageHeader): boolean {
  return (
    !isHooked(image) ||
    image.hooks.every((hook) => hook.kind !== 'update' || isMarked(target.read, image, hook))
  );
}

interface Effect {
  readonly image: HookedImage;
  readonly hook: ImageHook;
}

/** Updates that some image in the process has made, and nobody has taken back. */
function effectsOf(target: Target, present: readonly ImageHeader[]): Effect[] {
  return present
    .filter(isHooked)
    .flatMap((image) => updatesInEffect(target.read, image).map((hook) => ({ image, hook })));
}

/** Throws PATCH_PERMANENT when `next` lacks an update that is in effect and cannot be undone. */
export function requireUndoable(
  target: Target,
  present: readonly ImageHeader[],
  next: Patch | undefined,
): void {
  const kept = new Set(next?.hooks?.flatMap(({ kind, function: name }) => (kind === 'update' ? [name] : [])));
  for (const { image, hook } of effectsOf(target, present)) {
    if (hook.undo !== undefined || kept.has(hook.name)) continue;
    const { objectName } = image.description;
    const what = `update function ${hook.name} of the patch of ${objectName} has changed data, and nothing takes that back`;
    throw new KcareError('PATCH_PERMANENT', `process ${target.pid}: ${what}`, {
      pid: target.pid,
      hook: hook.name,
    });
  }
}

/** Hooks of the apply that an image in effect has run already are not run again by the one that replaces it. */
export function inheritHooks(target: Target, { present, next }: HookTransition): void {
  if (!next || !isHooked(next)) return;
  const before = present.filter(isHooked).filter((image) => !isSpent(image, target.read));
  for (const hook of next.hooks) {
    if (hook.kind !== 'before-apply' && hook.kind !== 'after-apply') continue;
    const isDone = before.some((image) =>
      image.hooks.some(
        (old) => old.kind === hook.kind && old.name === hook.name && isMarked(target.read, image, old),
      ),
    );
    if (isDone) writeMark(target, next, hook, 1);
  }
}

/**
 * What the commit has to run: undo functions, update functions, and the change of marks from the images that go to those
 * that come. Undefined when there is nothing. The record of one image says it.
 */
export function heldFunction(
  target: Target,
  transitions: readonly HookTransition[],
): HeldFunction | undefined {
  const runs = transitions.flatMap((transition) => runsOf(target, transition));
  const images = transitions.flatMap(({ present, next }) => [...(next ? [next] : []), ...present]);
  const host = images.find(isHooked);
  if (runs.length === 0 || !host) return undefined;
  writeRuns(target, host, runs);
  return {
    work: codeOf(host),
    wait: advance(codeOf(host), hookLayout.waitOffset),
    record: recordOf(host),
    stackDepth: hookLayout.stackDepth,
    signalReturn: target.signalReturn(),
  };
}

function runsOf(target: Target, { present, next }: HookTransition): Run[] {
  const effects = effectsOf(target, present);
  const wanted = next && isHooked(next) ? next.hooks.filter(({ kind }) => kind === 'update') : [];
  const names = new Set(wanted.map(({ name }) => name));
  const undone = new Set<string>();
  const undos = effects.toReversed().map(({ image, hook }): Run => {
    const { name, undo } = hook;
    if (undo === undefined || names.has(name) || undone.has(name)) return markingRun(image, hook, 0);
    undone.add(name);
    return { function: undo, mark: markOf(image, hook), value: 0 };
  });
  const updates = wanted.flatMap((hook): Run[] => {
    if (!next || !isHooked(next)) return [];
    const isInEffect = effects.some((effect) => effect.hook.name === hook.name);
    return [
      isInEffect
        ? markingRun(next, hook, 1)
        : { function: hook.function, mark: markOf(next, hook), value: 1 },
    ];
  });
  return [...undos, ...updates];
}

/** An image that another one has replaced is not unloaded, whenever it goes. */
export function withdrawUnloadHooks(target: Target, images: readonly ImageHeader[]): void {
  for (const image of images.filter(isHooked))
    for (const hook of image.hooks)
      if (hook.kind === 'before-unload' || hook.kind === 'after-unload') writeMark(target, image, hook, 1);
}
