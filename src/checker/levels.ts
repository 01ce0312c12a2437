// Which level of a patch is in effect in a process, read from its own memory.
import { inspect, type AppliedImage } from '../engine/index.js';
import { mappedObjects } from '../proc/index.js';

/** The patches of one process. */
export interface AppliedLevels {
  /** 0: none, or not in every copy of the object that the process has loaded. */
  of(buildId: string): number;
}

export const noLevels: AppliedLevels = { of: () => 0 };

/** Throws TARGET_GONE, NOT_PERMITTED, HEADER_MALFORMED. */
export function readLevels(pid: number): AppliedLevels {
  const images = inspect(pid).filter(({ state }) => state === 'active');
  if (images.length === 0) return noLevels;
  const objects = mappedObjects(pid).filter(({ executable }) => executable);
  return {
    of: (buildId) => levelOf(images, buildId, objects.filter((object) => object.buildId === buildId).length),
  };
}

function levelOf(images: readonly AppliedImage[], buildId: string, copies: number): number {
  const levels = images.filter((image) => image.buildId === buildId).map(({ level }) => level);
  levels.sort((left, right) => right - left);
  return levels[Math.max(copies, 1) - 1] ?? 0;
}
