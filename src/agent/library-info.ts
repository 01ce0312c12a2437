// --lib-info and --lib-patch-info: what is patched, read from the processes themselves. The shapes are those users parse.
import { exitCodes, type KcareError } from '../base/errors.js';
import { infoAll, type PatchedProcess, type UnreadableProcess } from '../host/index.js';

export interface InfoError {
  readonly pid: number;
  readonly comm: string;
  readonly error: ReturnType<KcareError['toJSON']>;
}

interface Listing<Entry> {
  readonly result: readonly Entry[];
  /** Processes that could not be examined, so that nothing is known about them; absent when there are none. */
  readonly errors?: readonly InfoError[];
}

export type LibraryInfo = Listing<{
  readonly pid: number;
  readonly comm: string;
  readonly objects: readonly {
    readonly name: string;
    readonly buildid: string;
    readonly patchlvl: number;
    readonly patchset: string;
    /** `active`, or how far an interrupted change came; the next update or unload finishes it. */
    readonly state: string;
  }[];
}>;

export type LibraryPatchInfo = Listing<{
  readonly pid: number;
  readonly comm: string;
  readonly object: string;
  readonly buildid: string;
  readonly patchlvl: number;
  readonly patchset: string;
  readonly package: string;
  readonly version: string;
  readonly fixed: string;
  readonly patches: readonly {
    readonly cve: string;
    readonly description: string;
    readonly score: string;
    readonly url: string;
  }[];
}>;

export interface InfoOptions {
  readonly pids?: readonly number[] | undefined;
}

/** Which processes are patched. */
export function libInfo(options: InfoOptions = {}): LibraryInfo {
  const { processes, unreadable } = infoAll(options);
  const result = processes.map(({ pid, comm, images }) => ({
    pid,
    comm,
    objects: images.map(({ objectName, buildId, level, patchset, state }) => ({
      name: objectName,
      buildid: buildId,
      patchlvl: level,
      patchset,
      state,
    })),
  }));
  return { result, ...errorsOf(unreadable) };
}

/** Which vulnerabilities are fixed in them; only patches that are in effect are listed (R6). */
export function libPatchInfo(options: InfoOptions = {}): LibraryPatchInfo {
  const { processes, unreadable } = infoAll(options);
  return { result: processes.flatMap(activeImages), ...errorsOf(unreadable) };
}

/** 0, or 4 when some processes could not be examined. */
export function infoExitCode({ errors }: Listing<unknown>): number {
  return errors ? exitCodes.partial : exitCodes.done;
}

function activeImages({ pid, comm, images }: PatchedProcess): LibraryPatchInfo['result'] {
  return images
    .filter(({ state }) => state === 'active')
    .map((image) => ({
      pid,
      comm,
      object: image.objectName,
      buildid: image.buildId,
      patchlvl: image.level,
      patchset: image.patchset,
      package: image.package,
      version: image.packageVersion,
      fixed: image.fixedVersion,
      patches: image.cves.map(({ id, description, score, url }) => ({ cve: id, description, score, url })),
    }));
}

function errorsOf(unreadable: readonly UnreadableProcess[]): { readonly errors?: readonly InfoError[] } {
  if (unreadable.length === 0) return {};
  return { errors: unreadable.map(({ pid, comm, error }) => ({ pid, comm, error: error.toJSON() })) };
}
