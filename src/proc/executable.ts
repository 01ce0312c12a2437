// Which program a process runs.
import { KcareError } from '../base/errors.js';
import { readAuxiliaryVector } from './auxiliary.js';
import { systemCode } from './failure.js';
import { readProcessLink } from './files.js';
import { readMaps } from './maps.js';

/** elf.h, getauxval(3) */
const entryPoint = 9;

/** Path of the program in its own mount namespace, also when its file was deleted. Throws TARGET_GONE, NOT_PERMITTED. */
export function readExecutable(pid: number): string {
  try {
    return readProcessLink(pid, 'exe').replace(/ \(deleted\)$/, '');
  } catch (thrown) {
    // The kernel shows links of up to one page; a directory may lie deeper, and maps have no such limit.
    if (!(thrown instanceof KcareError) || systemCode(thrown.cause) !== 'ENAMETOOLONG') throw thrown;
    const entry = readAuxiliaryVector(pid).get(entryPoint) ?? 0n;
    return readMaps(pid).find(({ start, end }) => start <= entry && entry < end)?.path ?? '';
  }
}
