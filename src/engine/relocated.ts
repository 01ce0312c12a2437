// Whether the loader is done with an object: until then, what its slots hold are not yet addresses.
import { advance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { parseProgramHeaders } from '../elf/index.js';
import type { MappedObject } from '../proc/index.js';
import type { MemoryReader } from './frames.js';

const relroType = 0x6474_e552;
const pageSize = 4096;

/**
 * Throws TARGET_BUSY for an object whose relocations the loader still writes: it makes the pages of PT_GNU_RELRO
 * read-only when it has finished (glibc and musl alike). Objects without such pages
 * pass, and so does a program that is linked statically: not every C library protects those.
 */
export function requireRelocated(pid: number, object: MappedObject, read: MemoryReader): void {
  const pages = relroPages(object, read);
  if (!pages) return;
  const home = object.mappings.find(({ start, end }) => start <= pages.start && pages.start < end);
  // Shared memory is no loader's work; what it means for a patch, others say.
  if (home?.permissions.charAt(1) !== 'w' || home.permissions.endsWith('s')) return;
  throw new KcareError('TARGET_BUSY', `process ${pid} is still loading ${object.name}`, { pid });
}

function relroPages(object: MappedObject, read: MemoryReader): { readonly start: RemoteAddress } | undefined {
  const first = object.mappings.find(({ offset }) => offset === 0);
  if (!first) return undefined;
  const relro = parseProgramHeaders(read(first.start, pageSize)).find(({ type }) => type === relroType);
  if (!relro) return undefined;
  const start = Math.floor(relro.address / pageSize) * pageSize;
  const end = Math.floor((relro.address + relro.memorySize) / pageSize) * pageSize;
  return end > start ? { start: advance(object.bias, start) } : undefined;
}
