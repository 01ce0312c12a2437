// Finds symbols of other objects as the process itself would: in the loader's order, by version, with its own choice of
// indirect functions.
import { basename } from 'node:path';
import { remoteAddress, type RemoteAddress } from '../base/address.js';
import { ByteReader, dynamicTag, relocationType } from '../elf/index.js';
import type { MappedObject } from '../proc/index.js';
import { DynamicTables, type Definition, type SymbolName } from './dynamic-tables.js';
import type { MemoryReader } from './frames.js';

/** The address, or why there is none that can be relied on. */
export type FoundSymbol = { readonly address: RemoteAddress } | { readonly problem: string };

interface Scope {
  /** The objects of the program's own namespace in the order in which the loader loaded them. */
  readonly order: readonly DynamicTables[];
  /** How many of them came with the program: among those, the first definition counts for all. */
  readonly atStart: number;
}

const mostObjects = 10_000;

/**
 * The address that `symbol` has for references of `object`. There is none when no object defines it, or when several do
 * and the loader's choice cannot be told (object or definition came by dlopen or dlmopen), or when it is an indirect
 * function of which no slot in the process shows the implementation: the resolver is never run by us.
 */
export function findSymbol(
  objects: readonly MappedObject[],
  object: MappedObject,
  symbol: SymbolName,
  read: MemoryReader,
): FoundSymbol {
  // A file mapped as plain data defines nothing, and its tables are not where its headers say.
  const loaded = objects.filter(({ executable }) => executable);
  const all = loaded.flatMap((candidate) => DynamicTables.of(candidate, read) ?? []);
  const scope = readScope(all, read);
  const place = scope?.order.findIndex((tables) => tables.object === object) ?? -1;
  const searched = scope && place >= 0 ? scope.order : all;
  const found = searched.flatMap((tables, index) => {
    const definition = tables.find(symbol);
    return definition ? [{ tables, index, definition }] : [];
  });
  const [first] = found;
  if (!first) return { problem: `no object defines ${spelling(symbol)}` };
  const isDecided = scope && place >= 0 && place < scope.atStart && first.index < scope.atStart;
  if (found.length > 1 && !isDecided) {
    const names = found.map(({ tables }) => tables.object.name).join(', ');
    return { problem: `${spelling(symbol)} is defined by ${names}, and which one counts is not known` };
  }
  if (!first.definition.isIndirect) return { address: first.definition.address };
  const chosen = implementation(all, first.tables, first.definition, symbol, read);
  return chosen === undefined
    ? { problem: `nothing in the process shows which implementation of ${spelling(symbol)} it uses` }
    : { address: chosen };
}

const spelling = ({ name, version }: SymbolName): string => (version === '' ? name : `${name}@${version}`);

/** By the list that the loader keeps for debuggers (struct r_debug and link_map in <link.h>). */
function readScope(all: readonly DynamicTables[], read: MemoryReader): Scope | undefined {
  const program = all.find((tables) => (tables.value(dynamicTag.debug) ?? 0n) !== 0n);
  const debug = program?.value(dynamicTag.debug);
  if (!program || debug === undefined) return undefined;
  const words = (address: bigint, count: number): bigint[] => {
    const reader = new ByteReader(read(remoteAddress(address), count * 8), 'list of the loader');
    return Array.from({ length: count }, () => reader.bigU64());
  };
  const order: DynamicTables[] = [];
  let [, entry = 0n] = words(debug, 2);
  for (let steps = 0; entry !== 0n && steps < mostObjects; steps++) {
    const [, , dynamicSection = 0n, next = 0n] = words(entry, 4);
    const tables = all.find(({ address }) => address === dynamicSection);
    // A list that leads back into itself is not the loader's.
    if (tables && order.includes(tables)) return undefined;
    if (tables) order.push(tables);
    entry = next;
  }
  return order[0] === program ? { order, atStart: countAtStart(order) } : undefined;
}

/** Up to the last object that the program needs; what is loaded later is listed later. */
function countAtStart(order: readonly DynamicTables[]): number {
  const places = new Map<string, number>();
  for (const [index, { object, soname }] of order.entries()) {
    for (const name of [object.name, soname ?? '']) if (!places.has(name)) places.set(name, index);
  }
  const reached = new Set([0]);
  for (const index of reached) {
    for (const needed of order[index]?.needed ?? []) {
      const found = places.get(basename(needed));
      if (found !== undefined) reached.add(found);
    }
  }
  return Math.max(...reached) + 1;
}

/** What the loader put into a slot when it asked the resolver: of the defining object itself or of another one. */
function implementation(
  all: readonly DynamicTables[],
  definer: DynamicTables,
  resolver: Definition,
  symbol: SymbolName,
  read: MemoryReader,
): RemoteAddress | undefined {
  const { start, end, bias } = definer.object;
  for (const tables of [definer, ...all.filter((candidate) => candidate !== definer)]) {
    for (const { type, address, addend, symbolIndex } of tables.relocations()) {
      const isOwnSlot =
        tables === definer && type === relocationType.iRelative && BigInt(addend) + bias === resolver.address;
      // A slot of the defining object for calls may lead to its own stub until the first call.
      const isNamed =
        type === relocationType.globDat || (type === relocationType.jumpSlot && tables !== definer);
      if (!isOwnSlot && !(isNamed && tables.refersTo(symbolIndex, symbol))) continue;
      const value = new ByteReader(read(address, 8), 'slot').bigU64();
      if (value >= start && value < end && value !== resolver.address) return remoteAddress(value);
    }
  }
  return undefined;
}
