// The lock of the unwinder: whether a thread holds it that is not there, so that nobody will ever get it.
import { advance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { listThreads, readStatus } from '../proc/index.js';
import type { MemoryReader } from './frames.js';
import type { Unwinder } from './unwinder.js';

const functionLimit = 512;

/**
 * A child of fork(2) has one thread. When another one of its parent was inside the unwinder at that moment, the child's
 * copy of the lock is taken for good, and a thread that is sent into the unwinder would wait forever (R1). False where
 * the lock is not found.
 */
export function isLockOrphaned(pid: number, { registerBases }: Unwinder, read: MemoryReader): boolean {
  const lock = lockIn(registerBases, read);
  if (lock === undefined) return false;
  const owner = ownerOf(lock, read);
  if (owner === 0 || threadIds(pid).has(owner)) return false;
  // The owner may have let go and ended while its threads were listed.
  return ownerOf(lock, read) === owner;
}

/** The first thing that the function does with it: `lea lock(%rip), %rdi; call pthread_mutex_lock`. */
function lockIn({ address, size }: Unwinder['registerBases'], read: MemoryReader): RemoteAddress | undefined {
  const code = Buffer.from(read(address, Math.min(size, functionLimit)));
  const loadSize = 7;
  const callOperation = 0xe8;
  const at = code.indexOf(Buffer.of(0x48, 0x8d, 0x3d));
  if (at < 0 || at + loadSize >= code.length || code[at + loadSize] !== callOperation) return undefined;
  return advance(address, at + loadSize + code.readInt32LE(at + 3));
}

/** Id of the thread that holds it, as the process numbers threads; 0 when it is free (pthread_mutex_t of glibc). */
function ownerOf(lock: RemoteAddress, read: MemoryReader): number {
  const words = Buffer.from(read(lock, 12));
  return words.readInt32LE(0) === 0 ? 0 : words.readInt32LE(8);
}

function threadIds(pid: number): Set<number> {
  return new Set(
    listThreads(pid).flatMap((tid) => {
      try {
        return readStatus(tid).namespacePids.slice(-1);
      } catch (error) {
        if (error instanceof KcareError && error.code === 'TARGET_GONE') return [];
        throw error;
      }
    }),
  );
}
