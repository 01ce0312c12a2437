// The unwinder of a target (libgcc_s): where it is, and whether unwind tables can be made known to it.
import type { RemoteAddress } from '../base/address.js';
import type { MappedObject } from '../proc/index.js';
import type { MemoryReader } from './frames.js';
import { DynamicTables, type Definition } from './dynamic-tables.js';
import { findSymbol } from './symbols.js';

export interface Unwinder {
  readonly object: MappedObject;
  /** Names of the versions that it defines. */
  readonly versions: readonly string[];
  readonly register: RemoteAddress;
  /** The function that does the work for it. */
  readonly registerBases: { readonly address: RemoteAddress; readonly size: number };
  readonly find: RemoteAddress;
  readonly deregister: RemoteAddress;
}

const version = 'GCC_3.0';
const registerName = '__register_frame_info';
/** From this one on, registered tables are kept in a tree of their own; such an unwinder was never tried. */
const firstUnknownMajor = 13;

/** All unwinders that take unwind tables; without one, nothing in the process can unwind by libgcc. */
export function findUnwinders(objects: readonly MappedObject[], read: MemoryReader): Unwinder[] {
  return objects.flatMap((object) => unwinderIn(object, read) ?? []);
}

function unwinderIn(object: MappedObject, read: MemoryReader): Unwinder | undefined {
  const tables = object.executable ? DynamicTables.of(object, read) : undefined;
  if (!tables) return undefined;
  const code = (name: string): Definition | undefined => {
    const found = tables.find({ name, version });
    return found && !found.isIndirect && isCode(object, found.address) ? found : undefined;
  };
  const register = code(registerName);
  if (register === undefined) return undefined;
  const [registerBases, find, deregister] = [
    code(`${registerName}_bases`),
    code('_Unwind_Find_FDE'),
    code('__deregister_frame_info'),
  ];
  if (!registerBases || !find || !deregister) return undefined;
  return {
    object,
    versions: tables.definedVersions,
    register: register.address,
    registerBases,
    find: find.address,
    deregister: deregister.address,
  };
}

/** The one of several that the process itself calls when code of `object` unwinds; or why that cannot be told. */
export function unwinderFor(
  object: MappedObject,
  unwinders: readonly Unwinder[],
  objects: readonly MappedObject[],
  read: MemoryReader,
): Unwinder | { readonly problem: string } {
  const [only, other] = unwinders;
  if (only && !other) return only;
  const found = findSymbol(objects, object, { name: registerName, version }, read);
  if ('problem' in found) return found;
  const chosen = unwinders.find(({ register }) => register === found.address);
  return chosen ?? { problem: `${registerName} is not that of an unwinder` };
}

/** R1: only code of the object itself is ever called. */
function isCode({ mappings }: MappedObject, address: RemoteAddress): boolean {
  return mappings.some(
    ({ start, end, permissions }) => start <= address && address < end && permissions.startsWith('r-x'),
  );
}

/** Why tables cannot be registered with it; undefined when they can. */
export function whyUnusable({ object, versions }: Unwinder): string | undefined {
  const majors = versions.flatMap((name) => {
    const [, major] = /^GCC_(\d+)\.\d+\.\d+$/.exec(name) ?? [];
    return major === undefined ? [] : [Number(major)];
  });
  const newest = Math.max(0, ...majors);
  return newest < firstUnknownMajor
    ? undefined
    : `its unwinder ${object.name} is of GCC ${newest}, and only those before GCC ${firstUnknownMajor} are known`;
}
