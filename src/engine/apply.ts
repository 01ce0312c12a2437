// Apply, upgrade, unload and repair for one process, as one commit over all objects concerned.
import { nativeEngine } from '../addon/index.js';
import { advance, hex, type RemoteAddress } from '../base/address.js';
import { asKcareError, exitCodes, KcareError } from '../base/errors.js';
import { ByteReader } from '../elf/index.js';
import {
  buildImage,
  guardedFunctions,
  isIntact,
  isReferenced,
  layOutImage,
  planTransition,
  type Image,
  type ImageHeader,
  type Plan,
} from '../link/index.js';
import type { Patch } from '../patchfile/index.js';
import { ProcessMemory, readMaps, type MappedObject } from '../proc/index.js';
import { checkReach, isInPlace, isPrivateCode, isSpent } from './image-check.js';
import { waitUntilAlone } from './alone.js';
import { findImages, mayHoldImage } from './images.js';
import { commitPlan } from './commit.js';
import { IntentJournal } from './intents.js';
import { requireLoaded } from './loading.js';
import {
  heldFunction,
  inheritHooks,
  isUpdated,
  requireUndoable,
  runAfterApply,
  runHooks,
  withdrawUnloadHooks,
} from './hooks.js';
import { settleHooks } from './hook-record.js';
import { Pauses } from './pauses.js';
import { withProcessLock } from './process-lock.js';
import { registerImages, wasAsked } from './registration.js';
import { mapImage, unmapImage } from './remote.js';
import { removeImages, type ImageToRemove } from './removal.js';
import type {
  AppliedImage,
  ApplyOptions,
  KeptImage,
  PendingHook,
  PatchToApply,
  TargetReport,
  TargetResult,
  UnregisteredImage,
} from './report.js';
import { withFreshLooks } from './retry.js';
import { findSymbol } from './symbols.js';
import { finishUnfinished } from './unfinished.js';
import { checkTarget, is32Bit, withTarget, type Target } from './target.js';

/** One object of the target with what is there and what shall be. */
interface Change {
  /** Undefined when the object was unloaded by the process and only images for it are left. */
  readonly object: MappedObject | undefined;
  readonly present: readonly ImageHeader[];
  readonly next: PatchToApply | undefined;
}

type Objects = TargetReport['objects'];

/** The images in a process, read from its memory. Throws TARGET_GONE, NOT_PERMITTED, HEADER_MALFORMED. */
export function inspect(pid: number): AppliedImage[] {
  if (!readMaps(pid).some(mayHoldImage)) return [];
  // Opened first: should the process execute another program meanwhile, reads fail.
  const memory = ProcessMemory.open(pid);
  try {
    return findImages(readMaps(pid), (address, length) => memory.read(address, length)).map(toAppliedImage);
  } finally {
    memory.close();
  }
}

function toAppliedImage({ description, hunks, ...image }: ImageHeader): AppliedImage {
  return {
    buildId: image.buildId,
    objectName: description.objectName,
    patchset: image.patchset,
    level: image.level,
    state: image.state,
    address: image.address,
    size: image.size,
    hunks: hunks.map(({ name, function: address }) => ({ name, address })),
    cves: description.cves,
    package: description.package,
    packageVersion: description.packageVersion,
    fixedVersion: description.fixedVersion,
    description: description.description,
  };
}

/**
 * Brings the objects of process `pid` to the levels of `patches`, all of them or none (R2). Never throws because of
 * the process: what stood in the way is in the report (R6, R11).
 */
export function apply(
  pid: number,
  patches: readonly PatchToApply[],
  options: ApplyOptions,
): Promise<TargetReport> {
  return reported(pid, options, 'apply', (target) => {
    const changes = target.objects.flatMap((object) => {
      const next = object.executable
        ? patches.find(({ patch }) => patch.buildId === object.buildId)
        : undefined;
      return next ? [{ object, present: imagesOf(object, target), next }] : [];
    });
    if (changes.length === 0) {
      if (is32Bit(pid))
        throw new KcareError('TARGET_UNSUPPORTED', `process ${pid} is a 32-bit program`, { pid });
      throw new KcareError('BUILD_ID_MISMATCH', `process ${pid} maps no object that these patches are for`, {
        pid,
        patches: patches.map(({ patch }) => patch.buildId),
      });
    }
    const needed = changes.filter((change) => !isUpToDate(change, target));
    // A process that loads and unloads a library over and over must not gather its old images.
    return [...needed, ...leftBehind(target), ...spentBeside(needed, target)];
  });
}

/** Puts the original code back into process `pid` and removes every image (R7). */
export function unload(pid: number, options: ApplyOptions): Promise<TargetReport> {
  return reported(pid, options, 'unload', (target) => {
    const changes = target.objects.map((object) => ({
      object,
      present: imagesOf(object, target),
      next: undefined,
    }));
    const needed = changes.filter(({ present }) => present.some((image) => !isSpent(image, target.read)));
    return [...needed, ...leftBehind(target), ...spentBeside(needed, target)];
  });
}

/** Removes what a patcher that died while it mapped an image left in process `pid`, wherever else it stands. */
export function finishInterrupted(pid: number, options: ApplyOptions): Promise<TargetReport> {
  return reported(pid, options, 'unload', () => []);
}

function imagesOf(object: MappedObject, target: Target): ImageHeader[] {
  const images = target.images.filter((image) => isFor(image, object));
  for (const image of images) checkReach(image, object);
  return images;
}

function isFor({ buildId, bias }: ImageHeader, object: MappedObject): boolean {
  return buildId === object.buildId && bias === object.bias;
}

/** Images whose object the process has unloaded: nothing jumps to them any more, which is looked at all the same (R1). */
function leftBehind({ images, objects, read }: Target): Change[] {
  const present = images.filter(
    (image) => !isSpent(image, read) && !objects.some((object) => isFor(image, object)),
  );
  for (const { address, hunks, description } of present) {
    const used = hunks.find((hunk) => isInPlace(hunk, read));
    if (!used) continue;
    throw new KcareError(
      'HEADER_MALFORMED',
      `code at ${hex(used.jump)} leads to the image at ${hex(address)}, but ${description.objectName} is not there`,
      { address: hex(address), jump: hex(used.jump) },
    );
  }
  return present.length > 0 ? [{ object: undefined, present, next: undefined }] : [];
}

/** Images that only have to be unmapped, beside those that the changes discard: earlier runs had to keep them. */
function spentBeside(changes: readonly Change[], { images, read }: Target): Change[] {
  const concerned = new Set(changes.flatMap(({ present }) => present));
  const present = images.filter((image) => isSpent(image, read) && !concerned.has(image));
  return present.length > 0 ? [{ object: undefined, present, next: undefined }] : [];
}

/** Images in effect that no change is about. An unwinder may have been loaded since they were mapped. */
function liveBeside(changes: readonly Change[], { images }: Target): ImageHeader[] {
  const concerned = new Set(changes.flatMap(({ present }) => present));
  return images.filter((image) => image.state === 'active' && !concerned.has(image));
}

function isOnlyRemoval({ present, next }: Change, { read }: Target): boolean {
  return next === undefined && present.every((image) => isSpent(image, read));
}

function isUpToDate({ present, next }: Change, target: Target): boolean {
  const [only, other] = present.filter((image) => !isSpent(image, target.read));
  return (
    only !== undefined &&
    other === undefined &&
    only.sha256 === next?.sha256 &&
    isIntact(only, target.read) &&
    isUpdated(target, only)
  );
}

async function reported(
  pid: number,
  options: ApplyOptions,
  mode: 'apply' | 'unload',
  choose: (target: Target) => readonly Change[],
): Promise<TargetReport> {
  const started = performance.now();
  const requestsBefore = nativeEngine.ptraceRequests();
  const pauses = new Pauses();
  let kept: readonly KeptImage[] = [];
  let unregistered: readonly UnregisteredImage[] = [];
  let pendingHooks: readonly PendingHook[] = [];
  const finish = (result: TargetResult, objects: Objects, error?: KcareError): TargetReport => ({
    pid,
    result,
    objects,
    ...(error && { error }),
    ...(kept.length > 0 && { kept }),
    ...(unregistered.length > 0 && { unregistered }),
    ...(pendingHooks.length > 0 && { pendingHooks }),
    ...(pauses.any && { pauseNs: pauses.toReport() }),
    ptraceRequests: nativeEngine.ptraceRequests() - requestsBefore,
    wallMs: performance.now() - started,
  });
  try {
    const journal = await IntentJournal.open(options.intentDirectory);
    const attempt = async (target: Target, settle: (result: TargetResult) => void): Promise<TargetResult> => {
      if (!options.dryRun) await settleHooks(target, options.waitMs, pauses);
      const chosen = choose(target);
      const changes = chosen.filter((change) => !isOnlyRemoval(change, target));
      const { discarded, ...done } = await carryOut(target, changes, options, pauses);
      if (changes.length > 0) settle(resultOf(changes, options));
      const spent = chosen.filter((change) => !changes.includes(change)).flatMap(({ present }) => present);
      if (!options.dryRun) {
        const live = liveBeside(changes, target);
        if (mode === 'apply')
          pendingHooks = await runAfterApply(target, [...done.applied, ...live], options.waitMs, pauses);
        const images = [...discarded, ...spent.map((image) => spentImage(image, target))];
        kept = await removeImages(target, images, options, pauses);
        if (mode === 'apply') {
          unregistered = [
            ...done.unregistered,
            ...(await registerImages(target, live, options.waitMs, pauses)),
          ];
        }
      }
      if (spent.length === kept.length || mode === 'apply') return 'unchanged';
      return options.dryRun ? 'would-unload' : 'unloaded';
    };
    const work = (): Promise<TargetResult> => {
      // Behind the lock: another patcher of ours traces it, too, for as long as it works.
      checkTarget(pid);
      if (!options.dryRun) finishUnfinished(pid, journal, pauses);
      return withFreshLooks<TargetResult>((settle) =>
        withTarget(pid, journal, (target) => attempt(target, settle)),
      );
    };
    // So that there are locks for whoever comes from outside of a container. What is in the way is said when it is needed.
    if (!options.dryRun) await journal.prepare().catch(() => undefined);
    const result = options.dryRun
      ? await work()
      : await withProcessLock(pid, options.intentDirectory, options.waitMs, work);
    return finish(result, options.dryRun ? [] : patchedObjects(pid));
  } catch (thrown) {
    const error = asKcareError(thrown);
    return finish(resultOfError(error), error.code === 'TARGET_GONE' ? [] : patchedObjects(pid), error);
  }
}

function resultOf(changes: readonly Change[], { dryRun }: ApplyOptions): TargetResult {
  const isUnload = changes.every(({ next }) => next === undefined);
  const isUpgrade = changes.some(({ present }) => present.some(({ state }) => state === 'active'));
  if (isUnload) return dryRun ? 'would-unload' : 'unloaded';
  if (isUpgrade) return dryRun ? 'would-upgrade' : 'upgraded';
  return dryRun ? 'would-apply' : 'applied';
}

function resultOfError(error: KcareError): TargetResult {
  if (error.code === 'TARGET_GONE') return 'gone';
  if (error.code === 'TARGET_BUSY') return 'busy';
  return error.exitCode === exitCodes.failed ? 'failed' : 'refused';
}

/** What is live in the process now; nothing when it ended meanwhile. */
function patchedObjects(pid: number): Objects {
  try {
    return inspect(pid)
      .filter(({ state }) => state === 'active')
      .map(({ objectName, buildId, level }) => ({ objectName, buildId, level }));
  } catch {
    return [];
  }
}

interface Prepared {
  readonly image: ImageHeader | undefined;
  readonly plan: Plan;
}

interface CarriedOut {
  /** Images that nothing needs any more. */
  readonly discarded: readonly ImageToRemove[];
  /** Images that are in effect now. */
  readonly applied: readonly ImageHeader[];
  readonly unregistered: readonly UnregisteredImage[];
}

async function carryOut(
  target: Target,
  changes: readonly Change[],
  options: ApplyOptions,
  pauses: Pauses,
): Promise<CarriedOut> {
  const nothing = { discarded: [], applied: [], unregistered: [] };
  if (changes.length === 0) return nothing;
  for (const change of changes) {
    if (change.object && change.next) requireLoaded(target, change.object);
    verifyOriginals(change, target);
    if (change.object) requireUndoable(target, change.present, change.next?.patch);
  }
  if (options.dryRun) return nothing;
  if (changes.some(({ next }) => next)) await target.journal.prepare();
  await waitUntilAlone(target.pid, options.waitMs);
  const prepared: Prepared[] = [];
  try {
    for (const change of changes) prepared.push(prepare(change, target, pauses));
    const images = prepared.flatMap(({ image }) => image ?? []);
    // Of an object that the process has unloaded the data are gone, too.
    const transitions = changes.flatMap(({ object, present }, index) =>
      object ? [{ present, next: prepared[index]?.image }] : [],
    );
    for (const transition of transitions) inheritHooks(target, transition);
    // Before the commit: no frame of a patch is ever unknown to an unwinder that is there.
    const unregistered = await registerImages(target, images, options.waitMs, pauses);
    const { waitMs } = options;
    for (const { object, present, next } of changes) {
      if (!object || next) continue;
      for (const image of present.filter(({ state }) => state === 'active'))
        await runHooks(target, image, 'before-unload', waitMs, pauses);
    }
    for (const image of images) await runHooks(target, image, 'before-apply', waitMs, pauses);
    const held = heldFunction(target, transitions);
    await commitPlan(target, mergePlans(prepared.map(({ plan }) => plan)), waitMs, pauses, undefined, held);
    for (const { present, next } of transitions) if (next) withdrawUnloadHooks(target, present);
    const discarded = prepared.flatMap(({ plan, image: next }, index) =>
      plan.discarded.map((image) => ({
        image,
        isGuarded: true,
        isUnloaded: !next && changes[index]?.object !== undefined && wasInEffect(image),
      })),
    );
    return { discarded, applied: images, unregistered };
  } catch (error) {
    await abandon(target, prepared, options, pauses);
    throw error;
  }
}

/** R3: every byte of every old function is the expected one, but for what images of ours put there. */
function verifyOriginals({ object, present, next }: Change, target: Target): void {
  if (!object) return;
  for (const hunk of next?.patch.hunks ?? []) {
    const start = advance(object.bias, hunk.address);
    if (!isPrivateCode(object, start, hunk.size)) {
      throw new KcareError(
        'TARGET_UNSUPPORTED',
        `process ${target.pid} has ${hunk.name} of ${object.name} in memory that is not private code of its own`,
        { pid: target.pid, function: hunk.name, object: object.name },
      );
    }
    const found = Buffer.from(target.read(start, hunk.size));
    for (const { jump, written, saved } of present.flatMap((image) => image.hunks)) {
      const offset = Number(jump - start);
      if (offset < 0 || offset + written.length > found.length) continue;
      if (found.subarray(offset, offset + written.length).equals(written)) found.set(saved, offset);
    }
    if (!found.equals(hunk.original)) {
      throw new KcareError(
        'BYTES_MISMATCH',
        `${hunk.name} in ${object.name} is not the code that was expected`,
        {
          pid: target.pid,
          function: hunk.name,
          object: object.name,
        },
      );
    }
  }
}

type ForeignSymbols = (name: string, version: string) => RemoteAddress | undefined;

/** Looks everything up before anything is mapped. Throws SYMBOL_UNRESOLVED. */
function resolveForeign(patch: Patch, object: MappedObject, target: Target): ForeignSymbols {
  const found = new Map<string, RemoteAddress>();
  for (const symbol of patch.symbols) {
    if (symbol.where !== 'foreign') continue;
    const { name, version } = symbol;
    const result = findSymbol(target.objects, object, { name, version }, target.read);
    if ('problem' in result) {
      throw new KcareError('SYMBOL_UNRESOLVED', `process ${target.pid}: ${result.problem}`, {
        name,
        version,
      });
    }
    found.set(`${name}@${version}`, result.address);
  }
  return (name, version) => found.get(`${name}@${version}`);
}

function prepare({ object, present, next }: Change, target: Target, pauses: Pauses): Prepared {
  const { read } = target;
  if (!object || !next) {
    return { image: undefined, plan: planTransition({ present, isObjectGone: !object, guarded: [], read }) };
  }
  const { patch, patchset, sha256 } = next;
  const foreign = resolveForeign(patch, object, target);
  const layout = layOutImage(patch);
  const word = (address: RemoteAddress): bigint => new ByteReader(read(address, 8), 'word').bigU64();
  const build = (address: RemoteAddress): Image =>
    buildImage(patch, layout, { image: address, bias: object.bias, foreign, word }, { patchset, sha256 });
  const image = mapImage(target, object, layout, build, pauses);
  try {
    const guarded = guardedFunctions(patch.hunks, object.bias);
    return { image, plan: planTransition({ present, next: image, guarded, read }) };
  } catch (error) {
    unmapImage(target, image, pauses);
    throw error;
  }
}

/** Also where an earlier run began to take it out of effect. */
function wasInEffect({ state }: ImageHeader): boolean {
  return state === 'active' || state === 'removing';
}

/** An earlier run took it out of effect; if nothing took its place, its hooks of the unload are still due. */
function spentImage(image: ImageHeader, { images }: Target): ImageToRemove {
  const isReplaced = images.some(
    ({ state, buildId, bias }) => state === 'active' && buildId === image.buildId && bias === image.bias,
  );
  return { image, isGuarded: false, isUnloaded: image.state === 'removing' && !isReplaced };
}

function mergePlans(plans: readonly Plan[]): Plan {
  return {
    writes: plans.flatMap(({ writes }) => writes),
    guarded: plans.flatMap(({ guarded }) => guarded),
    states: plans.flatMap(({ states }) => states),
    discarded: plans.flatMap(({ discarded }) => discarded),
  };
}

/** Removes what was mapped for a change that did not happen; the next run removes what cannot be removed now. */
async function abandon(
  target: Target,
  prepared: readonly Prepared[],
  options: ApplyOptions,
  pauses: Pauses,
): Promise<void> {
  for (const { image } of prepared) {
    if (!image) continue;
    try {
      // R1: never unmap what code still jumps to, however that came about.
      if (isReferenced(image, target.read)) continue;
      const discarded = { image, isGuarded: false, isUnloaded: false };
      if (wasAsked(target, image)) await removeImages(target, [discarded], options, pauses);
      else unmapImage(target, image, pauses);
    } catch (error) {
      if (!(error instanceof KcareError)) throw error;
    }
  }
}
