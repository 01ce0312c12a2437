// --lib-info and --lib-patch-info: what is patched, read from the processes themselves. The shapes are those users parse.
import { hex } from '../base/address.js';
import { exitCodes, type KcareError } from '../base/errors.js';
import type { AppliedImage } from '../engine/index.js';
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

/** All that kcare has in processes; addresses are hexadecimal texts. */
export type PatchList = Listing<{
  readonly pid: number;
  readonly comm: string;
  readonly objects: readonly (LibraryInfo['result'][number]['objects'][number] & {
    readonly address: string;
    /** Bytes of the mapping. */
    readonly size: number;
    readonly functions: readonly { readonly name: string; readonly address: string }[];
    readonly description: string;
    readonly patches: LibraryPatchInfo['result'][number]['patches'];
  })[];
}>;

export interface InfoOptions {
  readonly pids?: readonly number[] | undefined;
}

/** Which processes are patched. */
export function libInfo(options: InfoOptions = {}): LibraryInfo {
  const { processes, unreadable } = infoAll(options);
  const result = processes.map(({ pid, comm, images }) => ({ pid, comm, objects: images.map(toObject) }));
  return { result, ...errorsOf(unreadable) };
}

/** Which vulnerabilities are fixed in them; only patches that are in effect are listed (R6). */
export function libPatchInfo(options: InfoOptions = {}): LibraryPatchInfo {
  const { processes, unreadable } = infoAll(options);
  return { result: processes.flatMap(activeImages), ...errorsOf(unreadable) };
}

/** What is applied, with the functions that are replaced and where the new code lies. */
export function patchList(options: InfoOptions = {}): PatchList {
  const { processes, unreadable } = infoAll(options);
  const result = processes.map(({ pid, comm, images }) => ({
    pid,
    comm,
    objects: images.map((image) => ({
      ...toObject(image),
      address: hex(image.address),
      size: image.size,
      functions: image.hunks.map(({ name, address }) => ({ name, address: hex(address) })),
      description: image.description,
      patches: image.cves.map(toPatch),
    })),
  }));
  return { result, ...errorsOf(unreadable) };
}

/** 0, or 4 when some processes could not be examined. */
export function infoExitCode({ errors }: Listing<unknown>): number {
  return errors ? exitCodes.partial : exitCodes.done;
}

const toObject = ({ objectName, buildId, level, patchset, state }: AppliedImage) => ({
  name: objectName,
  buildid: buildId,
  patchlvl: level,
  patchset,
  state,
});

const toPatch = ({ id, description, score, url }: AppliedImage['cves'][number]) => ({
  cve: id,
  description,
  score,
  url,
});

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
      patches: image.cves.map(toPatch),
    }));
}

function errorsOf(unreadable: readonly UnreadableProcess[]): { readonly errors?: readonly InfoError[] } {
  if (unreadable.length === 0) return {};
  return { errors: unreadable.map(({ pid, comm, error }) => ({ pid, comm, error: error.toJSON() })) };
}
