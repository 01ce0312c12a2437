// The patches that new processes get, read from the cache when the first one needs them.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type { Standing, StandingPatch } from '../agent/index.js';
import type { PatchToApply } from '../engine/index.js';
import { readPatch } from '../patchfile/index.js';

type StandingOn = Extract<Standing, { readonly isOn: true }>;

export class PatchShelf {
  readonly levels: ReadonlyMap<string, number>;
  private readonly listed: ReadonlyMap<string, StandingPatch>;
  private readonly opened = new Map<string, PatchToApply>();

  constructor(private readonly standing: StandingOn) {
    this.listed = new Map(standing.patches.map((patch) => [patch.buildId, patch]));
    this.levels = new Map(standing.patches.map(({ buildId, level }) => [buildId, level]));
  }

  /** R4: later than this the patches are not to be applied; milliseconds since 1970. */
  get expires(): number {
    return Date.parse(this.standing.expires);
  }

  /** Undefined when it is not in the cache, or is damaged there. Throws PATCH_MALFORMED. */
  get(buildId: string): PatchToApply | undefined {
    const known = this.opened.get(buildId);
    const listed = this.listed.get(buildId);
    if (known || !listed || !existsSync(listed.path)) return known;
    const bytes = readFileSync(listed.path);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    // R4: these are the bytes that were verified.
    if (sha256 !== listed.sha256) return undefined;
    const patch = readPatch(bytes);
    // R3
    if (patch.buildId !== buildId) return undefined;
    const opened = { patch, patchset: this.standing.patchset, sha256 };
    this.opened.set(buildId, opened);
    return opened;
  }
}
