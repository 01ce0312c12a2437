// What `kcarectl info` says to people.
import type { PatchList } from '../agent/index.js';

/** The lines to print, without line ends. */
export function patchListText({ result, errors = [] }: PatchList): string[] {
  const named = (pid: number, comm: string): string => `Process ${pid} (${comm === '' ? '?' : comm})`;
  const lines = result.flatMap(({ pid, comm, container, objects }) => [
    `${named(pid, comm)}${container === undefined ? '' : ` in container ${container}`}`,
    ...objects.flatMap((object) => [
      `  ${object.name}, build-id ${object.buildid}: level ${object.patchlvl} of ${object.patchset}, ${object.state}`,
      ...(object.description === '' ? [] : [`    ${object.description}`]),
      ...object.patches.map(({ cve }) => `    fixes ${cve}`),
      ...object.functions.map(({ name, address }) => `    replaces ${name} at ${address}`),
    ]),
  ]);
  if (lines.length === 0 && errors.length === 0) return ['No process is patched.'];
  return [...lines, ...errors.map(({ pid, comm, error }) => `${named(pid, comm)}: ${error.message}`)];
}
