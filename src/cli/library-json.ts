// What --lib-update and --lib-unload say to programs.
import type { LibraryResult } from '../agent/index.js';
import { summarise } from '../host/index.js';

/** The whole result, JSON-safe; `processes` has one entry for each process concerned, whatever became of it. */
export function libraryJson({ dryRun, patchset, processes, warnings, exitCode }: LibraryResult): object {
  const { applied, upgraded, unloaded, patches, objects } = summarise(processes);
  return {
    dryRun,
    patchset: patchset ?? null,
    applied,
    upgraded,
    unloaded,
    patches,
    objects,
    processes: processes.map(({ rule, error, ...rest }) => ({
      ...rest,
      ...(rule && { blacklist: rule }),
      ...(error && { error: error.toJSON() }),
    })),
    warnings,
    exitCode,
  };
}
