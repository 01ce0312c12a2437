// Whether the loader is still at work on an object of a process: until then, what its slots hold are not yet addresses.
import { advance, remoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { ByteReader, dynamicTag, relocationType } from '../elf/index.js';
import type { MappedObject } from '../proc/index.js';
import { DynamicTables } from './dynamic-tables.js';
import type { Target } from './target.js';

/** RT_CONSISTENT of <link.h>: the list of loaded objects is whole. */
const consistent = 0;
const stateOffset = 24;
/** Of one table; those near its end are written last. */
const mostEntries = 64;

/**
 * Throws TARGET_BUSY while the loader maps objects (r_state of struct r_debug), or has not relocated `object` yet: at a
 * dlopen, glibc calls its list consistent before it relocates. Only what is evident counts, so that a process that
 * handles its slots or their protection in its own way is not busy for ever.
 */
export function requireLoaded(target: Pick<Target, 'pid' | 'objects' | 'read'>, object: MappedObject): void {
  const { pid, objects, read } = target;
  const busy = (): KcareError =>
    new KcareError('TARGET_BUSY', `process ${pid} is still loading ${object.name}`, { pid });
  for (const candidate of objects.filter(({ executable }) => executable)) {
    const debug = DynamicTables.of(candidate, read)?.value(dynamicTag.debug) ?? 0n;
    if (debug === 0n) continue;
    const state = new ByteReader(read(advance(remoteAddress(debug), stateOffset), 4), 'state of the loader');
    if (state.u32() !== consistent) throw busy();
    break;
  }
  if (objects.length > 1 && !isRelocated(target, object)) throw busy();
}

function isRelocated({ objects, read }: Pick<Target, 'objects' | 'read'>, object: MappedObject): boolean {
  const tables = DynamicTables.of(object, read);
  if (!tables) return true;
  const extent = object.end - object.bias;
  const isMapped = (value: bigint): boolean =>
    objects.some(({ start, end }) => start <= value && value < end);
  for (const slots of tables.lastSlots(mostEntries)) {
    for (const { address, type, symbolIndex } of slots) {
      const isOwn = type === relocationType.relative;
      const isNamed = type === relocationType.globDat || type === relocationType.jumpSlot;
      // A weak reference may well stay 0.
      if (!isOwn && !(isNamed && !tables.isWeak(symbolIndex))) continue;
      const value = new ByteReader(read(address, 8), 'slot').bigU64();
      if (value >= extent) break;
      // What could be an address within a program at a fixed place proves nothing.
      if (value !== 0n && isMapped(value)) continue;
      return false;
    }
  }
  return true;
}
