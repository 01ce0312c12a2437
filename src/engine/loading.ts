// Whether the loader is still at work on an object of a process: until then, what its slots hold are not yet addresses.
import { advance, remoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { ByteReader, dynamicTag, parseProgramHeaders, relocationType, segmentType } from '../elf/index.js';
import type { MappedObject } from '../proc/index.js';
import { DynamicTables, type LoadedRelocation } from './dynamic-tables.js';
import type { Target } from './target.js';

/** RT_CONSISTENT of <link.h>: the list of loaded objects is whole. */
const consistent = 0;
const stateOffset = 24;
/** Of each table, from its end: the loader fills slots in the order of the table. */
const mostEntries = 64;
const pageSize = 4096;

type View = Pick<Target, 'pid' | 'maps' | 'objects' | 'read'>;

/**
 * Throws TARGET_BUSY while the loader maps objects (r_state of struct r_debug in <link.h>), or has not relocated `object`
 * yet: at a dlopen, glibc calls its list consistent before it relocates. Only what is evident counts: a process that
 * handles its slots or their protection in its own way is not busy for ever.
 */
export function requireLoaded(target: View, object: MappedObject): void {
  const { pid } = target;
  if (isMapping(target) || !isRelocated(target, object))
    throw new KcareError('TARGET_BUSY', `process ${pid} is still loading ${object.name}`, { pid });
}

function isMapping({ objects, read }: View): boolean {
  for (const object of objects) {
    const debug = object.executable ? (DynamicTables.of(object, read)?.value(dynamicTag.debug) ?? 0n) : 0n;
    if (debug === 0n) continue;
    const state = read(advance(remoteAddress(debug), stateOffset), 4);
    return new ByteReader(state, 'state of the loader').u32() !== consistent;
  }
  return false;
}

/** Protecting what is read-only after relocation (PT_GNU_RELRO) is the last that the loader does to an object. */
function isRelocated(target: View, object: MappedObject): boolean {
  const tables = DynamicTables.of(object, target.read);
  // At a fixed place, addresses before and after are alike; such a program is relocated before it loads anything.
  if (!tables || object.bias === 0n || isProtected(target, object)) return true;
  return tables.lastRelocations(mostEntries).every((entries) => {
    const signs = entries.map((entry) => signOf(target, object, tables, entry));
    // The program itself does not change slots for symbols: the last one tells. Other addresses it may clear, but not all.
    const lastNamed = signs.findLast((sign) => sign?.isNamed);
    if (lastNamed) return lastNamed.isAddress;
    return signs.some((sign) => sign?.isAddress) || signs.every((sign) => sign === undefined);
  });
}

interface Sign {
  readonly isNamed: boolean;
  readonly isAddress: boolean;
}

/** What the linker left in a slot is 0 or lies within the object as it is in its file. Undefined: it tells nothing. */
function signOf(
  { objects, read }: View,
  object: MappedObject,
  tables: DynamicTables,
  { address, type, symbolIndex }: LoadedRelocation,
): Sign | undefined {
  const isNamed = type === relocationType.globDat || type === relocationType.jumpSlot;
  // A weak reference may well stay 0.
  if (type !== relocationType.relative && !(isNamed && !tables.isWeak(symbolIndex))) return undefined;
  const value = new ByteReader(read(address, 8), 'slot').bigU64();
  if (value >= object.end - object.bias) return { isNamed, isAddress: true };
  // What could be an address within a program at a fixed place proves nothing.
  const isMapped = value !== 0n && objects.some(({ start, end }) => start <= value && value < end);
  return isMapped ? undefined : { isNamed, isAddress: false };
}

function isProtected({ maps, read }: View, object: MappedObject): boolean {
  const relro = parseProgramHeaders(read(object.start, pageSize)).find(
    ({ type }) => type === segmentType.gnuRelro,
  );
  if (!relro) return false;
  // The loader protects whole pages within the segment.
  const end = advance(object.bias, relro.address + relro.memorySize);
  const last = end - (end % BigInt(pageSize)) - 1n;
  const mapping = maps.find((candidate) => candidate.start <= last && last < candidate.end);
  return (
    last >= object.bias + BigInt(relro.address) && mapping !== undefined && !mapping.permissions.includes('w')
  );
}
