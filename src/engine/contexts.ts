// What a commit has to search the memory of a target for, beside looking at its threads.
import { nativeEngine } from '../addon/index.js';
import { remoteAddress, type RemoteRange } from '../base/address.js';
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

/**
 * Whether a word of the process's memory points into `range`, in which nothing is mapped yet: it is left from what was
 * mapped there before. An image put there could not be told from one that the process still uses.
 */
export function isPointedInto(target: Target, range: RemoteRange): boolean {
  const search = {
    contexts: false,
    pointerGuard: readPointerGuard(target),
    unreferenced: [range],
    own: [],
    largestSearch,
  };
  return nativeEngine.findPointer(target.pid, search) !== undefined;
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
