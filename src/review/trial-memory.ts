// All code and all mappings of a process, to be compared with those of another moment.
import { createHash } from 'node:crypto';
import { distance, hex } from '../base/address.js';
import { ProcessMemory, readMaps, type Mapping } from '../proc/index.js';

export interface MemoryPicture {
  /** One line for each mapping, in the order of addresses; the heap without its end. */
  readonly mappings: readonly string[];
  /** Digest of each mapping with code, by its line. */
  readonly code: ReadonlyMap<string, string>;
  /** Of all code, bytes. */
  readonly codeSize: number;
}

const mostAtOnce = 16 * 1024 * 1024;

/** Throws TARGET_GONE, TARGET_MEMORY. */
export function takePicture(pid: number): MemoryPicture {
  const memory = ProcessMemory.open(pid);
  try {
    const maps = readMaps(pid);
    const code = new Map<string, string>();
    let codeSize = 0;
    for (const mapping of maps) {
      // The kernel lets nobody read [vsyscall].
      if (!mapping.permissions.includes('x') || mapping.path === '[vsyscall]') continue;
      code.set(describe(mapping), digest(memory, mapping));
      codeSize += distance(mapping.start, mapping.end);
    }
    return { mappings: maps.map(describe), code, codeSize };
  } finally {
    memory.close();
  }
}

function digest(memory: ProcessMemory, { start, end }: Mapping): string {
  const hash = createHash('sha256');
  for (let at = start; at < end;) {
    const length = Math.min(distance(at, end), mostAtOnce);
    hash.update(memory.read(at, length));
    at = (at + BigInt(length)) as typeof at;
  }
  return hash.digest('hex');
}

function describe({ start, end, permissions, offset, path }: Mapping): string {
  const last = path === '[heap]' ? '…' : hex(end);
  return `${hex(start)}-${last} ${permissions} ${hex(offset)} ${path}`.trimEnd();
}

/** In words; empty where both are the same. */
export function differences(before: MemoryPicture, after: MemoryPicture): string[] {
  const [old, now] = [new Set(before.mappings), new Set(after.mappings)];
  return [
    ...before.mappings.filter((line) => !now.has(line)).map((line) => `mapping gone: ${line}`),
    ...after.mappings.filter((line) => !old.has(line)).map((line) => `mapping left: ${line}`),
    ...[...before.code]
      .filter(([line, sum]) => after.code.has(line) && after.code.get(line) !== sum)
      .map(([line]) => `code changed: ${line}`),
  ];
}
