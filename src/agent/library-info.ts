// --lib-info and --lib-patch-info: what is patched, read from the processes themselves. The shapes are those users parse.
import { hex } from '../base/address.js';
import { exitCodes, type KcareError } from '../base/errors.js';
import type { AppliedImage } from '../engine/index.js';
import {
  countStates,
  infoAll,
  type BlacklistRule,
  type CoverageState,
  type PatchedProcess,
  type UnreadableProcess,
} from '../host/index.js';
import { libraryCoverage } from './known-patches.js';
import { locate, type Location } from './location.js';

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

interface InfoObject {
  readonly name: string;
  readonly buildid: string;
  readonly patchlvl: number;
  readonly patchset: string;
  /** `active`, or how far an interrupted change came; the next update or unload finishes it. */
  readonly state: string;
}

/** One process that is patched or could be. */
export interface InfoProcess extends Location {
  readonly pid: number;
  readonly comm: string;
  /** What is in the process; empty when it is not patched. */
  readonly objects: readonly InfoObject[];
  readonly state: CoverageState;
  /** Patches that should be in effect and are not; absent when there are none. */
  readonly missing?: readonly Pick<InfoObject, 'name' | 'buildid' | 'patchlvl'>[];
  /** Why it is in this state; absent for `patched`. */
  readonly reason?: string;
  /** The error of the last attempt. */
  readonly code?: string;
  /** ISO 8601: since when patches are missing. */
  readonly since?: string;
  readonly rule?: BlacklistRule;
}

export interface LibraryInfo extends Listing<InfoProcess> {
  /** How many processes are in each state. */
  readonly states: Readonly<Record<CoverageState, number>>;
  /** The patchset by which the processes are judged; null when none is known, and then only patched ones are listed. */
  readonly patchset: string | null;
  /** Why nothing is known of the feed, or why that is old; absent when all is well. */
  readonly problem?: ReturnType<KcareError['toJSON']>;
  readonly warnings?: readonly string[];
}

export type LibraryPatchInfo = Listing<{
  readonly pid: number;
  readonly comm: string;
  readonly container?: string;
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
  readonly container?: string;
  readonly objects: readonly (InfoObject & {
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

/** Which processes are patched, and why others are not. Throws as libraryCoverage. */
export async function libInfo(root: string, options: InfoOptions = {}): Promise<LibraryInfo> {
  const { processes, unreadable, known, problem, warnings } = await libraryCoverage(root, options);
  return {
    result: processes.map(({ pid, comm, images, state, missing, reason, code, since, rule }) => ({
      pid,
      comm,
      ...locate(pid),
      objects: images.map(toObject),
      state,
      ...(missing.length > 0 && {
        missing: missing.map(({ objectName, buildId, level }) => ({
          name: objectName,
          buildid: buildId,
          patchlvl: level,
        })),
      }),
      ...(reason !== '' && { reason }),
      ...(code !== undefined && { code }),
      ...(since && { since: since.toISOString() }),
      ...(rule && { rule }),
    })),
    states: countStates(processes),
    patchset: known?.patchset ?? null,
    ...(problem && { problem: problem.toJSON() }),
    ...(warnings.length > 0 && { warnings }),
    ...errorsOf(unreadable),
  };
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
    ...locate(pid),
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
export function infoExitCode({ errors }: { readonly errors?: readonly unknown[] }): number {
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
  const location = locate(pid);
  return images
    .filter(({ state }) => state === 'active')
    .map((image) => ({
      pid,
      comm,
      ...location,
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
