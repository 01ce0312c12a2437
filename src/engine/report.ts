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
  /** Journal of mappings that were begun, safe from others (R10); the same for all patchers of a process. */
  readonly intentDirectory?: string | undefined;
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

/** Something that could not be done with an image yet, but does not keep the code from being what it should be. */
export interface Remainder {
  readonly address: RemoteAddress;
  readonly reason: string;
  /** Only threads were in the way, or had no processor: trying again soon can help. */
  readonly mayPass: boolean;
}

/** An image that is out of effect, but must stay mapped until the reason is gone; a later run removes it. */
export interface KeptImage extends Remainder {
  /** Bytes of the mapping. */
  readonly size: number;
}

/** A patch in effect through which the process itself cannot unwind (exceptions, pthread_cancel, backtrace) yet. */
export interface UnregisteredImage extends Remainder {
  readonly objectName: string;
}

/** Of the details of a TARGET_BUSY whose reason does not go away by waiting. */
export const lasting = { isLasting: true };

export function mayPass({ code, details }: KcareError): boolean {
  return code === 'TARGET_BUSY' && details['isLasting'] !== true;
}

/** A hook that is to be run after the apply, and that no thread could be sent into yet. */
export interface PendingHook {
  readonly objectName: string;
  readonly reason: string;
}

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
  /** Absent when every image that is out of effect was removed. */
  readonly kept?: readonly KeptImage[];
  /** Absent when the process's unwinder knows all patches, or when it has none. */
  readonly unregistered?: readonly UnregisteredImage[];
  /** Absent when all hooks were run; a later update runs the rest. */
  readonly pendingHooks?: readonly PendingHook[];
  /** Longest stop of a thread that was running, and of any thread, nanoseconds (R8). */
  readonly pauseNs?: { readonly running: number; readonly longest: number };
  /** ptrace(2) requests made meanwhile. */
  readonly ptraceRequests: number;
  readonly wallMs: number;
}
