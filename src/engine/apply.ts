// Apply, upgrade, unload and repair for one process, as one commit over all objects concerned.
import { advance, hex, type RemoteAddress } from '../base/address.js';
import { asKcareError, exitCodes, KcareError } from '../base/errors.js';
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
import { checkReach, isInPlace, isPrivateCode } from './image-check.js';
import { waitUntilAlone } from './alone.js';
import { findImages } from './images.js';
import { commitPlan } from './commit.js';
import { Pauses } from './pauses.js';
import { mapImage, unmapImage } from './remote.js';
import type { AppliedImage, ApplyOptions, PatchToApply, TargetReport, TargetResult } from './report.js';
import { findSymbol } from './symbols.js';
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
  return reported(pid, options, (target) => {
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
    return needed.length > 0 ? [...needed, ...leftBehind(target)] : [];
  });
}

/** Puts the original code back into process `pid` and removes every image (R7). */
export function unload(pid: number, options: ApplyOptions): Promise<TargetReport> {
  return reported(pid, options, (target) => {
    const changes = target.objects.map((object) => ({
      object,
      present: imagesOf(object, target),
      next: undefined,
    }));
    return [...changes.filter(({ present }) => present.length > 0), ...leftBehind(target)];
  });
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
  const present = images.filter((image) => !objects.some((object) => isFor(image, object)));
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

function isUpToDate({ present, next }: Change, target: Target): boolean {
  const [only, other] = present;
  return (
    only !== undefined && other === undefined && only.sha256 === next?.sha256 && isIntact(only, target.read)
  );
}

async function reported(
  pid: number,
  options: ApplyOptions,
  choose: (target: Target) => readonly Change[],
): Promise<TargetReport> {
  const started = performance.now();
  const pauses = new Pauses();
  const finish = (result: TargetResult, objects: Objects, error?: KcareError): TargetReport => ({
    pid,
    result,
    objects,
    ...(error && { error }),
    ...(pauses.any && { pauseNs: pauses.toReport() }),
    wallMs: performance.now() - started,
  });
  try {
    checkTarget(pid);
    const result = await withTarget(pid, async (target) => {
      const changes = choose(target);
      await carryOut(target, changes, options, pauses);
      return resultOf(changes, options);
    });
    return finish(result, options.dryRun ? [] : patchedObjects(pid));
  } catch (thrown) {
    const error = asKcareError(thrown);
    return finish(resultOfError(error), error.code === 'TARGET_GONE' ? [] : patchedObjects(pid), error);
  }
}

function resultOf(changes: readonly Change[], { dryRun }: ApplyOptions): TargetResult {
  if (changes.length === 0) return 'unchanged';
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

async function carryOut(
  target: Target,
  changes: readonly Change[],
  options: ApplyOptions,
  pauses: Pauses,
): Promise<void> {
  if (changes.length === 0) return;
  for (const change of changes) verifyOriginals(change, target);
  if (options.dryRun) return;
  await waitUntilAlone(target.pid, options.waitMs);
  const prepared: Prepared[] = [];
  try {
    for (const change of changes) prepared.push(prepare(change, target, pauses));
    await commitPlan(target, mergePlans(prepared.map(({ plan }) => plan)), options.waitMs, pauses);
  } catch (error) {
    abandon(target, prepared, pauses);
    throw error;
  }
  for (const { plan } of prepared) {
    for (const image of plan.discarded) unmapImage(target, image, pauses);
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
function resolveForeign(patch: Patch, target: Target): ForeignSymbols {
  const found = new Map<string, RemoteAddress>();
  for (const symbol of patch.symbols) {
    if (symbol.where !== 'foreign') continue;
    const { name, version } = symbol;
    const address = findSymbol(target.objects, name, version, target.read);
    if (address === undefined) {
      throw new KcareError('SYMBOL_UNRESOLVED', `process ${target.pid} has no usable symbol ${name}`, {
        name,
        version,
      });
    }
    found.set(`${name}@${version}`, address);
  }
  return (name, version) => found.get(`${name}@${version}`);
}

function prepare({ object, present, next }: Change, target: Target, pauses: Pauses): Prepared {
  const { read } = target;
  if (!object || !next) {
    return { image: undefined, plan: planTransition({ present, isObjectGone: !object, guarded: [], read }) };
  }
  const { patch, patchset, sha256 } = next;
  const foreign = resolveForeign(patch, target);
  const layout = layOutImage(patch);
  const build = (address: RemoteAddress): Image =>
    buildImage(patch, layout, { image: address, bias: object.bias, foreign }, { patchset, sha256 });
  const image = mapImage(target, object, layout, build, pauses);
  try {
    const guarded = guardedFunctions(patch.hunks, object.bias);
    return { image, plan: planTransition({ present, next: image, guarded, read }) };
  } catch (error) {
    unmapImage(target, image, pauses);
    throw error;
  }
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
function abandon(target: Target, prepared: readonly Prepared[], pauses: Pauses): void {
  for (const { image } of prepared) {
    if (!image) continue;
    try {
      // R1: never unmap what code still jumps to, however that came about.
      if (!isReferenced(image, target.read)) unmapImage(target, image, pauses);
    } catch (error) {
      if (!(error instanceof KcareError)) throw error;
    }
  }
}
