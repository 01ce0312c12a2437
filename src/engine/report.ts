// What the engine takes and tells about one target.
import type { RemoteAddress } from '../base/address.js';
import type { KcareError } from '../base/errors.js';
import type { ImageState } from '../link/index.js';
import type { Patch, PatchedCve } from '../patchfile/index.js';

export interface AppliedImage {
  readonly buildId: string;
  readonly objectName: string;
  readonly patchset: string;
  readonly level: number;
  /** What is in effect: an image of an object that was unloaded counts as removed. */
  readonly state: ImageState;
  readonly address: RemoteAddress;
  /** Bytes of the mapping. */
  readonly size: number;
  readonly hunks: readonly { readonly name: string; readonly address: RemoteAddress }[];
  readonly cves: readonly PatchedCve[];
  readonly package: string;
  readonly packageVersion: string;
  readonly fixedVersion: string;
  readonly description: string;
}

export interface PatchToApply {
  readonly patch: Patch;
  readonly patchset: string;
  /** Of the patch file, hexadecimal. */
  readonly sha256: string;
}

export interface ApplyOptions {
  /** How long to try again while a thread is inside an old function, milliseconds. */
  readonly waitMs: number;
  readonly dryRun: boolean;
}

export type TargetResult =
  | 'applied'
  | 'upgraded'
  | 'unchanged'
  | 'unloaded'
  | 'busy'
  | 'refused'
  | 'failed'
  | 'gone'
  | 'would-apply'
  | 'would-upgrade'
  | 'would-unload';

/** Outcome for one process (R6). `objects` lists what is patched in it afterwards, or with a dry run would be. */
export interface TargetReport {
  readonly pid: number;
  readonly result: TargetResult;
  readonly objects: readonly {
    readonly objectName: string;
    readonly buildId: string;
    readonly level: number;
  }[];
  readonly error?: KcareError;
  /** Longest stop of a thread that was running, and of any thread, nanoseconds (R8). */
  readonly pauseNs?: { readonly running: number; readonly longest: number };
  readonly wallMs: number;
}
