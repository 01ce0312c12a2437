// The words of an image that say which of its hooks were run.
import { advance, type RemoteAddress } from '../base/address.js';
import { hookLayout, type HookPlace, type ImageHeader, type ImageHook } from '../link/index.js';
import type { MemoryReader } from './frames.js';

export interface HookedImage extends ImageHeader {
  readonly hookPlace: HookPlace;
}

export function isHooked(image: ImageHeader): image is HookedImage {
  return image.hookPlace !== undefined;
}

export function recordOf({ address, hookPlace }: HookedImage): RemoteAddress {
  return advance(address, hookPlace.record);
}

export function markOf(image: HookedImage, hook: ImageHook): RemoteAddress {
  return advance(recordOf(image), hookLayout.marksOffset + 4 * image.hooks.indexOf(hook));
}

export function isMarked(read: MemoryReader, image: HookedImage, hook: ImageHook): boolean {
  return Buffer.from(read(markOf(image, hook), 4)).readUInt32LE() === 1;
}

/** Update functions whose work nobody has taken back, and no other image has taken over. */
export function updatesInEffect(read: MemoryReader, image: ImageHeader): ImageHook[] {
  if (!isHooked(image)) return [];
  return image.hooks.filter((hook) => hook.kind === 'update' && isMarked(read, image, hook));
}
