// The lines of `libcare-client info -j`, in the shape that UChecker and administrators' scripts read.
import type { LibraryInfo } from '../agent/index.js';

export interface ClientInfo {
  readonly pid: number;
  readonly comm: string;
  /** By the name of the object: build-id and level. */
  readonly [object: string]: number | string | { readonly buildid: string; readonly patchlvl: number };
}

/** One entry for each process with a patch in effect. */
export function clientInfo({ result }: LibraryInfo): ClientInfo[] {
  return result.flatMap(({ pid, comm, objects }) => {
    const active = objects.filter(({ state }) => state === 'active');
    if (active.length === 0) return [];
    // pid and comm behind the objects would be overwritten by objects of these names.
    const named = active.map(({ name, buildid, patchlvl }): [string, ClientInfo[string]] => [
      name,
      { buildid, patchlvl },
    ]);
    return [
      { pid, comm, ...Object.fromEntries(named.filter(([name]) => name !== 'pid' && name !== 'comm')) },
    ];
  });
}
