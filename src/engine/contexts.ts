// What a commit has to search the memory of a target for, beside looking at its threads.
import { remoteAddress } from '../base/address.js';
import type { MemorySearch } from '../addon/types.js';
import { readAuxiliaryVector, type MappedObject } from '../proc/index.js';
import { DynamicTables } from './dynamic-tables.js';
import type { MemoryReader } from './frames.js';
import type { Target } from './target.js';

/**
 * Bytes of memory that a process has written. To prove that nothing points to an image, all of it is read while the
 * process stands still; a process with more keeps the image mapped. docs/engine.md tells what the stop costs.
 */
export const largestSearch = 32 * 1024 * 1024;

const auxiliaryRandom = 25;
const switchingFunctions = ['makecontext', 'swapcontext', 'setcontext'];

const definedByLibrary = { name: 'makecontext', version: '' };

const switching = new WeakMap<readonly MappedObject[], boolean>();

export type Absence = Pick<MemorySearch, 'unreferenced' | 'own'>;

/** Undefined when there is nothing to search for. */
export function memorySearch(target: Target, absence: Absence): MemorySearch | undefined {
  let contexts = switching.get(target.objects);
  if (contexts === undefined) {
    contexts = switchesContexts(target.objects, target.read);
    switching.set(target.objects, contexts);
  }
  if (!contexts && absence.unreferenced.length === 0) return undefined;
  return { contexts, ...absence, largestSearch, pointerGuard: readPointerGuard(target) };
}

/** Whether some object can have coroutines by means of the C library. A statically linked program does not tell. */
function switchesContexts(objects: readonly MappedObject[], read: MemoryReader): boolean {
  return objects
    .filter(({ executable }) => executable)
    .some((object) => {
      const tables = DynamicTables.of(object, read);
      return !tables || (tables.mentions(switchingFunctions) && !tables.find(definedByLibrary));
    });
}

/**
 * glibc mangles the addresses that it saves with the second word of the random bytes that the kernel gave the process
 * (sysdeps/unix/sysv/linux/dl-osinfo.h). 0 where there are none: then nothing is mangled.
 */
function readPointerGuard({ pid, read }: Target): bigint {
  const random = readAuxiliaryVector(pid).get(auxiliaryRandom);
  if (random === undefined) return 0n;
  const bytes = read(remoteAddress(random), 16);
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(8, true);
}
