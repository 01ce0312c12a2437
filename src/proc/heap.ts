// Where a process's heap begins, also before it has one.
import { remoteAddress, type RemoteAddress } from '../base/address.js';
import { readProcessFile } from './files.js';

/** Index of start_brk among the fields of /proc/PID/stat that follow the name (proc(5) counts it as 47). */
const startField = 44;
const pageSize = 4096n;

/**
 * The page in which brk(2) begins; older kernels do not begin it at the start of one. Undefined where the kernel does not tell: to users that may not
 * trace the process, and when its main thread has ended. Throws TARGET_GONE.
 */
export function readHeapStart(pid: number): RemoteAddress | undefined {
  const text = readProcessFile(pid, 'stat');
  const start = text.slice(text.lastIndexOf(')') + 2).split(' ')[startField] ?? '0';
  return start === '0' ? undefined : remoteAddress((BigInt(start) / pageSize) * pageSize);
}
