// What the JSON of the commands that make patches says about one patch.
import type { Patch } from '../patchfile/index.js';

/** Level, CVE ids, hunks without their bytes, and proof; nothing where there is no patch. */
export function patchJson(patch: Patch | undefined): object {
  if (!patch) return {};
  return {
    level: patch.metadata.level,
    cves: patch.metadata.cves.map(({ id }) => id),
    hunks: patch.hunks.map(({ kind, name, address, size, replacement, independent }) => ({
      kind,
      name,
      address,
      size,
      replacement,
      independent,
    })),
    proof: patch.metadata.proof,
  };
}
