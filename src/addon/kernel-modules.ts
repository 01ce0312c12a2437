// Kernel modules by system call: exactly the bytes that were verified are given to the kernel.
import { constants } from 'node:os';
import { nativeModule } from './native.js';

/** Undefined: loaded; else the name of the system's error, such as EKEYREJECTED. */
export function loadKernelModule(bytes: Uint8Array): string | undefined {
  return nameOf(nativeModule().loadKernelModule(bytes));
}

/** Undefined: unloaded; else the name of the system's error, such as EAGAIN for a module in use. */
export function unloadKernelModule(name: string): string | undefined {
  return nameOf(nativeModule().unloadKernelModule(name));
}

/** Those that Node does not know: asm-generic/errno.h. */
const others: Readonly<Record<number, string>> = { 126: 'ENOKEY', 129: 'EKEYREJECTED' };

function nameOf(errno: number): string | undefined {
  if (errno === 0) return undefined;
  const known = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
  return known ?? others[errno] ?? `error ${errno}`;
}
