// Removes images that a commit left without effect, or keeps them mapped with a reason; a later run tries again.
import { advance, type RemoteRange } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { guardedImage, headerSize, presence, type ImageHeader, type Plan } from '../link/index.js';
import { commitPlan } from './commit.js';
import { memorySearch } from './contexts.js';
import { runHooks } from './hooks.js';
import type { Pauses } from './pauses.js';
import { deregisterImage } from './registration.js';
import { unmapImage } from './remote.js';
import { mayPass, type ApplyOptions, type KeptImage } from './report.js';
import type { Target } from './target.js';

export interface ImageToRemove {
  readonly image: ImageHeader;
  /** The commit that has just put it out of effect found no thread inside. */
  readonly isGuarded: boolean;
  /** It was in effect, and nothing has taken its place. */
  readonly isUnloaded: boolean;
}

/**
 * Unmaps images to which no code leads any more (R7), as soon as nothing can return into them or still knows an address
 * of theirs (R1). Throws TARGET_GONE only: whatever else stands in the way is the reason why an image is kept (R6).
 */
export async function removeImages(
  target: Target,
  images: readonly ImageToRemove[],
  options: ApplyOptions,
  pauses: Pauses,
): Promise<KeptImage[]> {
  const kept: KeptImage[] = [];
  for (const { image, isGuarded, isUnloaded } of images) {
    try {
      if (isUnloaded) await runHooks(target, image, 'after-unload', options.waitMs, pauses);
      if (!isGuarded) await waitUntilUnused(target, image, [], options, pauses);
      const isInside = await deregisterImage(target, image, options.waitMs, pauses);
      // Last, because the unwinder keeps addresses of the image until then.
      if (isInside || mayBeReached(target, image)) {
        await waitUntilUnused(target, image, image.escapes ? whatMayBeKept(image) : [], options, pauses);
      }
      unmapImage(target, image, pauses);
    } catch (thrown) {
      if (!(thrown instanceof KcareError) || thrown.code === 'TARGET_GONE') throw thrown;
      kept.push({
        address: image.address,
        size: image.size,
        reason: thrown.message,
        mayPass: mayPass(thrown),
      });
    }
  }
  return kept;
}

/**
 * Although no thread was inside when no code led there any more: by an address that the process keeps, or by a context
 * that was suspended inside between the commit's search for contexts and its stop.
 */
function mayBeReached(target: Target, image: ImageHeader): boolean {
  return image.escapes || memorySearch(target, { unreferenced: [], own: [] }) !== undefined;
}

/**
 * All but the unwind tables and the header. What still points to the tables is memory that the unwinder has freed.
 * Nothing of the patch hands out an address of the header; but where an image lies directly behind another mapping, its
 * start is the end of that mapping, which the loader and allocators keep.
 */
function whatMayBeKept({ address, size, ehFrame, hunks, hooks, description }: ImageHeader): RemoteRange[] {
  const content = advance(address, headerSize(hunks.length, hooks.length, description));
  const end = advance(address, size);
  if (ehFrame.size === 0) return [{ start: content, end }];
  const tables = advance(address, ehFrame.offset);
  return [
    { start: content, end: tables },
    { start: advance(tables, ehFrame.size), end },
  ].filter((range) => range.start < range.end);
}

/** A commit that changes nothing: in one stop it finds out whether something is inside, or leads there. */
async function waitUntilUnused(
  target: Target,
  image: ImageHeader,
  unreferenced: readonly RemoteRange[],
  { waitMs }: ApplyOptions,
  pauses: Pauses,
): Promise<void> {
  const plan: Plan = { writes: [presence(image)], guarded: [guardedImage(image)], states: [], discarded: [] };
  const own = { start: image.address, end: advance(image.address, image.size) };
  await commitPlan(target, plan, waitMs, pauses, { unreferenced, own: [own] });
}
