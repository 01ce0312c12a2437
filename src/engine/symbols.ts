// Looks up symbols of other objects in the target's own dynamic symbol tables, as the loader would.
import { advance, remoteAddress, type RemoteAddress } from '../base/address.js';
import { ByteReader, parseProgramHeaders, segmentType } from '../elf/index.js';
import type { MappedObject } from '../proc/index.js';
import type { MemoryReader } from './frames.js';

const tags = {
  stringTable: 5n,
  symbolTable: 6n,
  gnuHash: 0x6ffffef5n,
  versionIndexes: 0x6ffffff0n,
  versionDefinitions: 0x6ffffffcn,
} as const;
const symbolSize = 24;
const pageSize = 4096;
const longestName = 4096;
const longestChain = 1_000_000;
const functionType = 2;
const objectType = 1;

interface DynamicTables {
  readonly bias: RemoteAddress;
  readonly at: (tag: bigint) => RemoteAddress | undefined;
}

/**
 * The address of `name` (with `version`, unless that is ""). Undefined when no object defines it, when several do (the
 * process's own choice could be another), or when it is an indirect function, whose choice only the loader knows.
 */
export function findSymbol(
  objects: readonly MappedObject[],
  name: string,
  version: string,
  read: MemoryReader,
): RemoteAddress | undefined {
  // A file mapped as plain data defines nothing, and its tables are not where its headers say.
  const loaded = objects.filter((object) => object.executable);
  const found = loaded.flatMap((object) => {
    const tables = readTables(object, read);
    return tables ? (lookUp(tables, name, version, read) ?? []) : [];
  });
  const [only, other] = found;
  return only !== undefined && other === undefined ? only.address : undefined;
}

function readTables(object: MappedObject, read: MemoryReader): DynamicTables | undefined {
  const segments = parseProgramHeaders(read(object.start, pageSize));
  const dynamic = segments.find((segment) => segment.type === segmentType.dynamic);
  if (!dynamic || dynamic.memorySize > 16 * pageSize) return undefined;
  const reader = new ByteReader(
    read(advance(object.bias, dynamic.address), dynamic.memorySize),
    'dynamic section',
  );
  const values = new Map<bigint, bigint>();
  while (reader.position + 16 <= reader.length) {
    const tag = reader.bigU64();
    const value = reader.bigU64();
    if (tag === 0n) break;
    values.set(tag, value);
  }
  return {
    bias: object.bias,
    at: (tag) => {
      const value = values.get(tag);
      if (value === undefined) return undefined;
      // The loader turns these into addresses in place, except where the section is read-only.
      return value < object.start ? advance(object.bias, value) : remoteAddress(value);
    },
  };
}

/** Hash function of the GNU hash table. */
function gnuHash(name: string): number {
  let hash = 5381;
  for (const byte of Buffer.from(name, 'latin1')) hash = (Math.imul(hash, 33) + byte) >>> 0;
  return hash;
}

function lookUp(
  tables: DynamicTables,
  name: string,
  version: string,
  read: MemoryReader,
): { readonly address: RemoteAddress } | undefined {
  const hashTable = tables.at(tags.gnuHash);
  const symbolTable = tables.at(tags.symbolTable);
  if (hashTable === undefined || symbolTable === undefined) return undefined;
  const word = (address: RemoteAddress): number => new ByteReader(read(address, 4), 'hash table').u32();
  const bucketCount = word(hashTable);
  const firstSymbol = word(advance(hashTable, 4));
  const bloomSize = word(advance(hashTable, 8));
  if (bucketCount === 0) return undefined;
  const buckets = advance(hashTable, 16 + bloomSize * 8);
  const chains = advance(buckets, bucketCount * 4);
  const wanted = gnuHash(name);
  let index = word(advance(buckets, (wanted % bucketCount) * 4));
  for (let steps = 0; index >= firstSymbol && steps < longestChain; index++, steps++) {
    const hash = word(advance(chains, (index - firstSymbol) * 4));
    if ((hash | 1) === (wanted | 1)) {
      const symbol = new ByteReader(read(advance(symbolTable, index * symbolSize), symbolSize), 'symbol');
      const nameOffset = symbol.u32();
      const type = symbol.u8() & 15;
      symbol.u8();
      const isDefined = symbol.u16() !== 0;
      const value = symbol.bigU64();
      const fits =
        isDefined && readName(tables, nameOffset, read) === name && hasVersion(tables, index, version, read);
      if (fits)
        return type === functionType || type === objectType
          ? { address: advance(tables.bias, value) }
          : undefined;
    }
    if (hash & 1) break;
  }
  return undefined;
}

function readName(tables: DynamicTables, offset: number, read: MemoryReader): string {
  const strings = tables.at(tags.stringTable);
  if (strings === undefined) return '';
  const bytes: number[] = [];
  for (let position = offset; bytes.length < longestName; position++) {
    const [byte = 0] = read(advance(strings, position), 1);
    if (byte === 0) break;
    bytes.push(byte);
  }
  return Buffer.from(bytes).toString('latin1');
}

function hasVersion(tables: DynamicTables, index: number, version: string, read: MemoryReader): boolean {
  const indexes = tables.at(tags.versionIndexes);
  let definition = tables.at(tags.versionDefinitions);
  if (version === '' || indexes === undefined || definition === undefined) return true;
  const wanted = new ByteReader(read(advance(indexes, index * 2), 2), 'version').u16() & 0x7fff;
  for (let steps = 0; steps < 1000; steps++) {
    const reader = new ByteReader(read(definition, 20), 'version definition', 'ELF_MALFORMED', 4);
    const number = reader.u16();
    reader.position = 12;
    const auxiliary = reader.u32();
    const next = reader.u32();
    if ((number & 0x7fff) === wanted) {
      const nameOffset = new ByteReader(read(advance(definition, auxiliary), 4), 'version name').u32();
      return readName(tables, nameOffset, read) === version;
    }
    if (next === 0) return false;
    definition = advance(definition, next);
  }
  return false;
}
