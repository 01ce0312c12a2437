// Finds the signal return trampoline of a target, through which a thread of it can be made to make system calls.
import { advance, distance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import type { MappedObject } from '../proc/index.js';
import type { MemoryReader } from './frames.js';

/** `mov $15,%rax; syscall`: rt_sigreturn */
const trampoline = Buffer.from('48c7c00f0000000f05', 'hex');
const chunkSize = 1024 * 1024;
/** A process can map a file with holes that is larger than any code. */
const mostSearched = 256 * 1024 * 1024;

/** Offset from the load bias, by build-id: equal files have equal code. */
const knownOffsets = new Map<string, number>();

/** Throws TARGET_UNSUPPORTED when the process has no such code. */
export function findSignalReturn(objects: readonly MappedObject[], read: MemoryReader): RemoteAddress {
  for (const object of [...objects].sort((left, right) => preference(left) - preference(right))) {
    const address = inObject(object, read);
    if (address !== undefined) return address;
  }
  throw new KcareError(
    'TARGET_UNSUPPORTED',
    'neither the loader nor the C library of the process has a signal return trampoline',
  );
}

/** The loader is small and in every dynamic process; the C library comes next. */
function preference({ name }: MappedObject): number {
  if (name.startsWith('ld-')) return 0;
  return name.startsWith('libc.so') || name.startsWith('libc-') ? 1 : 2;
}

function inObject(object: MappedObject, read: MemoryReader): RemoteAddress | undefined {
  const offset = knownOffsets.get(object.buildId);
  if (offset !== undefined) {
    const address = advance(object.bias, offset);
    // Nothing is taken on trust: another process may have claimed this build-id for other code.
    if (isWithinCode(object, address) && trampoline.equals(read(address, trampoline.length))) return address;
  }
  const address = search(object, read);
  if (address !== undefined && object.buildId !== '')
    knownOffsets.set(object.buildId, distance(object.bias, address));
  return address;
}

function isWithinCode({ mappings }: MappedObject, address: RemoteAddress): boolean {
  return mappings.some(
    ({ start, end, permissions }) =>
      permissions.charAt(2) === 'x' && start <= address && advance(address, trampoline.length) <= end,
  );
}

function search(object: MappedObject, read: MemoryReader): RemoteAddress | undefined {
  let searched = 0;
  for (const mapping of object.mappings) {
    if (mapping.permissions.charAt(2) !== 'x') continue;
    for (
      let start = mapping.start;
      start < mapping.end;
      start = advance(start, chunkSize - trampoline.length)
    ) {
      const length = Math.min(chunkSize, distance(start, mapping.end));
      const at = Buffer.from(read(start, length)).indexOf(trampoline);
      if (at >= 0) return advance(start, at);
      searched += length;
      if (length < chunkSize || searched > mostSearched) break;
    }
  }
  return undefined;
}
