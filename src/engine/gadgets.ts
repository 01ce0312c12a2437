// Finds the two instruction sequences that a system call in a target needs, in code the target already has.
import { advance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import type { RemoteGadgets } from '../addon/types.js';
import type { MappedObject } from '../proc/index.js';
import type { MemoryReader } from './frames.js';

/** `syscall; ret` */
const systemCall = Buffer.from('0f05c3', 'hex');
/** `mov $15,%rax; syscall`: rt_sigreturn */
const signalReturn = Buffer.from('48c7c00f0000000f05', 'hex');
const chunkSize = 1024 * 1024;

/** Offsets from the load bias, by build-id: equal files have equal code. */
const known = new Map<string, { readonly systemCall: number; readonly signalReturn: number }>();

/** Throws TARGET_UNSUPPORTED when the process has no such code (a statically linked program, say). */
export function findGadgets(objects: readonly MappedObject[], read: MemoryReader): RemoteGadgets {
  for (const object of [...objects].sort((left, right) => preference(left) - preference(right))) {
    const cached = known.get(object.buildId);
    if (cached) {
      const gadgets = {
        systemCall: advance(object.bias, cached.systemCall),
        signalReturn: advance(object.bias, cached.signalReturn),
      };
      // The file may be the same and the memory not: never jump on trust.
      if (
        systemCall.equals(read(gadgets.systemCall, systemCall.length)) &&
        signalReturn.equals(read(gadgets.signalReturn, signalReturn.length))
      ) {
        return gadgets;
      }
      continue;
    }
    const found = {
      systemCall: search(object, systemCall, read),
      signalReturn: search(object, signalReturn, read),
    };
    if (found.systemCall === undefined || found.signalReturn === undefined) continue;
    const gadgets = { systemCall: found.systemCall, signalReturn: found.signalReturn };
    if (object.buildId !== '') {
      known.set(object.buildId, {
        systemCall: Number(gadgets.systemCall - object.bias),
        signalReturn: Number(gadgets.signalReturn - object.bias),
      });
    }
    return gadgets;
  }
  throw new KcareError(
    'TARGET_UNSUPPORTED',
    'neither the loader nor the C library of the process holds the instructions that a system call needs',
  );
}

/** The loader is small and in every dynamic process; the C library comes next. */
function preference({ name }: MappedObject): number {
  if (name.startsWith('ld-')) return 0;
  return name.startsWith('libc.so') || name.startsWith('libc-') ? 1 : 2;
}

function search(object: MappedObject, pattern: Buffer, read: MemoryReader): RemoteAddress | undefined {
  for (const mapping of object.mappings) {
    if (mapping.permissions.charAt(2) !== 'x') continue;
    for (let start = mapping.start; start < mapping.end; start = advance(start, chunkSize - pattern.length)) {
      const length = Math.min(chunkSize, Number(mapping.end - start));
      const at = Buffer.from(read(start, length)).indexOf(pattern);
      if (at >= 0) return advance(start, at);
      if (length < chunkSize) break;
    }
  }
  return undefined;
}
