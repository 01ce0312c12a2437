// What `kcarectl info` says to people.
import type { PatchList } from '../agent/index.js';
import { named } from './library-text.js';

/** The lines to print, without line ends. */
export function patchListText({ result, errors = [] }: PatchList): string[] {
  const lines = result.flatMap((process) => [
    named(process),
    ...process.objects.flatMap((object) => [
      `  ${object.name}, build-id ${object.buildid}: level ${object.patchlvl} of ${object.patchset}, ${object.state}`,
      ...(object.description === '' ? [] : [`    ${object.description}`]),
      ...object.patches.map(({ cve }) => `    fixes ${cve}`),
      ...object.functions.map(({ name, address }) => `    replaces ${name} at ${address}`),
    ]),
  ]);
  if (lines.length === 0 && errors.length === 0) return ['No process is patched.'];
  return [...lines, ...errors.map((failed) => `${named(failed)}: ${failed.error.message}`)];
}
