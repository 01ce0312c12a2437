// The levels between which the endurance run moves its targets: 0 is the original code, the others are patches.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { apply, readPatch, unload, type ApplyOptions, type TargetReport } from '../src/engine/index.js';

export const levels = [1, 2];
export const original = 42;

/** What the target's function answers at this level. */
export const valueOf = (level: number): number => original + level;

export const patchFile = (directory: string, level: number): string =>
  path.join(directory, `${level}.kpatch`);

const options: ApplyOptions = { waitMs: 5000, dryRun: false };

/** Brings a process to a level, with the patches in a directory. */
export function mover(directory: string): (pid: number, level: number) => Promise<TargetReport> {
  const patches = new Map(
    levels.map((level) => {
      const bytes = fs.readFileSync(patchFile(directory, level));
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      return [level, { patch: readPatch(bytes), patchset: 'U20261122_01', sha256 }];
    }),
  );
  return (pid, level) => {
    const patch = patches.get(level);
    return patch ? apply(pid, [patch], options) : unload(pid, options);
  };
}
