// The dynamic section of an object in the target's memory: its names, symbols with versions, and relocations.
// Formats: gABI "Dynamic Section"; Linux Standard Base, "Symbol Versioning"; GNU hash as bfd and glibc write it.
import { advance, remoteAddress, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import {
  ByteReader,
  dynamicTag,
  gnuIfunc,
  parseProgramHeaders,
  segmentType,
  symbolBindings,
} from '../elf/index.js';
import type { MappedObject } from '../proc/index.js';
import type { MemoryReader } from './frames.js';

const symbolSize = 24;
const relocationSize = 24;
const pageSize = 4096;
const longestName = 4096;
const longestStrings = 64 * 1024 * 1024;
/** Real ones have some dozens; a process can make one that never ends. */
const longestChain = 10_000;
const longestRelocations = 64 * 1024 * 1024;
/** Relocations that are read at once. */
const relocationsAtOnce = 4096;
/**
 * For one look at a process, all its objects together. The largest real ones take some hundred thousand; tables that
 * lead from every entry of one to every entry of another could take any number.
 */
const mostReads = 2_000_000;

const readsSoFar = new WeakMap<MemoryReader, number>();

/** `read`, which throws TARGET_UNSUPPORTED when tables have been read {@link mostReads} times, and names the object. */
function counted(read: MemoryReader, { name }: MappedObject): MemoryReader {
  return (address, length) => {
    const reads = (readsSoFar.get(read) ?? 0) + 1;
    readsSoFar.set(read, reads);
    if (reads > mostReads)
      throw new KcareError('TARGET_UNSUPPORTED', `the dynamic tables of ${name} lead to no end`);
    try {
      return read(address, length);
    } catch (error) {
      if (!(error instanceof KcareError) || error.code !== 'TARGET_MEMORY') throw error;
      throw new KcareError('TARGET_MEMORY', `the dynamic tables of ${name} lead nowhere: ${error.message}`, {
        ...error.details,
      });
    }
  };
}
const symbolTypes = { none: 0, object: 1, function: 2 } as const;
/** Version index of symbols without a version; the lowest index that a version has is 2. */
const unversioned = 1;
const hiddenVersion = 0x8000;

export interface Definition {
  readonly address: RemoteAddress;
  readonly size: number;
  readonly isIndirect: boolean;
}

export interface LoadedRelocation {
  /** Of the slot. */
  readonly address: RemoteAddress;
  readonly type: number;
  readonly symbolIndex: number;
  readonly addend: number;
}

/** A missing version, "", stands for the one that a fresh link would choose. */
export interface SymbolName {
  readonly name: string;
  readonly version: string;
}

interface HashTable {
  readonly bucketCount: number;
  readonly firstSymbol: number;
  readonly buckets: RemoteAddress;
  readonly chains: RemoteAddress;
}

/** For one look at a process: several questions are asked of the same tables. */
const tablesSoFar = new WeakMap<MemoryReader, Map<MappedObject, DynamicTables | undefined>>();

export class DynamicTables {
  private hashTable: HashTable | undefined;

  private constructor(
    readonly object: MappedObject,
    /** Address of the dynamic section, by which the loader's list names the object. */
    readonly address: RemoteAddress,
    private readonly entries: readonly (readonly [tag: number, value: bigint])[],
    private readonly read: MemoryReader,
  ) {}

  /** Undefined for an object without a dynamic section. */
  static of(object: MappedObject, read: MemoryReader): DynamicTables | undefined {
    let known = tablesSoFar.get(read);
    if (!known) tablesSoFar.set(read, (known = new Map<MappedObject, DynamicTables | undefined>()));
    if (!known.has(object)) known.set(object, DynamicTables.read(object, read));
    return known.get(object);
  }

  private static read(object: MappedObject, read: MemoryReader): DynamicTables | undefined {
    const segments = parseProgramHeaders(read(object.start, pageSize));
    const dynamic = segments.find((segment) => segment.type === segmentType.dynamic);
    if (!dynamic || dynamic.memorySize > 16 * pageSize) return undefined;
    const address = advance(object.bias, dynamic.address);
    const reader = new ByteReader(read(address, dynamic.memorySize), 'dynamic section');
    const entries: [number, bigint][] = [];
    while (reader.position + 16 <= reader.length) {
      const tag = Number(reader.bigU64());
      const value = reader.bigU64();
      if (tag === 0) break;
      entries.push([tag, value]);
    }
    return new DynamicTables(object, address, entries, counted(read, object));
  }

  value(tag: number): bigint | undefined {
    return this.entries.find(([candidate]) => candidate === tag)?.[1];
  }

  private at(tag: number): RemoteAddress | undefined {
    const value = this.value(tag);
    if (value === undefined) return undefined;
    // The loader turns these into addresses in place, except where the section is read-only.
    return value < this.object.start ? advance(this.object.bias, value) : remoteAddress(value);
  }

  private word(address: RemoteAddress): number {
    return new ByteReader(this.read(address, 4), 'dynamic tables').u32();
  }

  get soname(): string | undefined {
    const offset = this.value(dynamicTag.soname);
    return offset === undefined ? undefined : this.text(Number(offset));
  }

  get needed(): string[] {
    return this.entries
      .filter(([tag]) => tag === dynamicTag.needed)
      .map(([, value]) => this.text(Number(value)));
  }

  /** Where the object defines the symbol, if it does, as the loader looks for it. */
  find({ name, version }: SymbolName): Definition | undefined {
    const table = this.hashes();
    if (!table || this.value(dynamicTag.symbolTable) === undefined) return undefined;
    const { bucketCount, firstSymbol, buckets, chains } = table;
    if (bucketCount === 0) return undefined;
    const wanted = gnuHash(name);
    let index = this.word(advance(buckets, (wanted % bucketCount) * 4));
    for (let steps = 0; index >= firstSymbol && steps < longestChain; index++, steps++) {
      const hash = this.word(advance(chains, (index - firstSymbol) * 4));
      if ((hash | 1) === (wanted | 1)) {
        const symbol = this.symbol(index);
        if (symbol?.isDefined && symbol.name === name && this.hasVersion(index, version)) {
          const isIndirect = symbol.type === gnuIfunc;
          const isUsable = isIndirect || Object.values(symbolTypes).some((type) => type === symbol.type);
          const address = advance(this.object.bias, symbol.value);
          return isUsable ? { address, size: symbol.size, isIndirect } : undefined;
        }
      }
      if (hash & 1) break;
    }
    return undefined;
  }

  private hashes(): HashTable | undefined {
    const start = this.at(dynamicTag.gnuHash);
    if (this.hashTable || start === undefined) return this.hashTable;
    const reader = new ByteReader(this.read(start, 12), 'hash table');
    const [bucketCount, firstSymbol, bloomSize] = [reader.u32(), reader.u32(), reader.u32()];
    const buckets = advance(start, 16 + bloomSize * 8);
    this.hashTable = { bucketCount, firstSymbol, buckets, chains: advance(buckets, bucketCount * 4) };
    return this.hashTable;
  }

  private symbol(
    index: number,
  ):
    | { name: string; type: number; isWeak: boolean; isDefined: boolean; value: bigint; size: number }
    | undefined {
    const table = this.at(dynamicTag.symbolTable);
    if (table === undefined) return undefined;
    const reader = new ByteReader(this.read(advance(table, index * symbolSize), symbolSize), 'symbol');
    const nameOffset = reader.u32();
    const info = reader.u8();
    reader.u8();
    const isDefined = reader.u16() !== 0;
    const [type, isWeak] = [info & 15, symbolBindings[info >> 4] === 'weak'];
    return {
      name: this.text(nameOffset),
      type,
      isWeak,
      isDefined,
      value: reader.bigU64(),
      size: reader.u64(),
    };
  }

  /** Whether a relocation of this object with that index refers to this symbol; "" stands for any version. */
  refersTo(symbolIndex: number, { name, version }: SymbolName): boolean {
    if (symbolIndex === 0 || this.symbol(symbolIndex)?.name !== name) return false;
    return version === '' || this.neededVersion(this.versionIndex(symbolIndex) ?? 0) === version;
  }

  /** A symbol of this object that may stay without a definition. */
  isWeak(symbolIndex: number): boolean {
    return this.symbol(symbolIndex)?.isWeak ?? false;
  }

  /** The entries of both relocation tables. */
  *relocations(): Generator<LoadedRelocation> {
    for (const { start, count } of this.relocationTables()) {
      for (let done = 0; done < count; done += relocationsAtOnce)
        yield* this.relocationsAt(start, done, Math.min(relocationsAtOnce, count - done));
    }
  }

  /** Up to `most` entries of the end of each relocation table. */
  lastRelocations(most: number): LoadedRelocation[][] {
    return this.relocationTables().map(({ start, count }) => {
      const first = Math.max(0, count - most);
      return [...this.relocationsAt(start, first, count - first)];
    });
  }

  private relocationTables(): { readonly start: RemoteAddress; readonly count: number }[] {
    const tables = [
      [dynamicTag.relocations, dynamicTag.relocationsSize],
      [dynamicTag.pltRelocations, dynamicTag.pltRelocationsSize],
    ] as const;
    return tables.flatMap(([tag, sizeTag]) => {
      const [start, size] = [this.at(tag), Number(this.value(sizeTag) ?? 0n)];
      if (start === undefined || size > longestRelocations) return [];
      return { start, count: Math.floor(size / relocationSize) };
    });
  }

  private *relocationsAt(start: RemoteAddress, first: number, count: number): Generator<LoadedRelocation> {
    const bytes = this.read(advance(start, first * relocationSize), count * relocationSize);
    const reader = new ByteReader(bytes, 'relocations');
    while (!reader.atEnd) {
      const address = advance(this.object.bias, reader.bigU64());
      const type = reader.u32();
      const symbolIndex = reader.u32();
      yield { address, type, symbolIndex, addend: Number(reader.bigI64()) };
    }
  }

  /** Whether one of these names is in the string table, as that of a symbol used or defined; true when it is too large. */
  mentions(names: readonly string[]): boolean {
    const [strings, size] = [
      this.at(dynamicTag.stringTable),
      Number(this.value(dynamicTag.stringTableSize) ?? 0n),
    ];
    if (strings === undefined || size > longestStrings) return true;
    const text = Buffer.from(this.read(strings, size));
    return names.some((name) => text.includes(`${name}\0`, 0, 'latin1'));
  }

  private text(offset: number): string {
    const strings = this.at(dynamicTag.stringTable);
    if (strings === undefined) return '';
    const parts: Buffer[] = [];
    for (let start = advance(strings, offset), length = 0; length < longestName;) {
      const chunk = Buffer.from(this.read(start, pageSize - Number(start % BigInt(pageSize))));
      const end = chunk.indexOf(0);
      parts.push(end < 0 ? chunk : chunk.subarray(0, end));
      if (end >= 0) break;
      length += chunk.length;
      start = advance(start, chunk.length);
    }
    return Buffer.concat(parts).toString('latin1');
  }

  private versionIndex(symbolIndex: number): number | undefined {
    const indexes = this.at(dynamicTag.versionIndexes);
    if (indexes === undefined) return undefined;
    return new ByteReader(this.read(advance(indexes, symbolIndex * 2), 2), 'version').u16();
  }

  /** As the loader: a definition without a version serves every reference; a reference without one takes the default. */
  private hasVersion(symbolIndex: number, version: string): boolean {
    const index = this.versionIndex(symbolIndex);
    if (index === undefined || this.at(dynamicTag.versionDefinitions) === undefined) return true;
    if (version === '') return (index & hiddenVersion) === 0;
    if (index === unversioned) return true;
    return this.definedVersion(index & ~hiddenVersion) === version;
  }

  private definedVersion(wanted: number): string | undefined {
    const offset = [...this.versionDefinitions()].find(({ number }) => number === wanted)?.nameOffset;
    return offset === undefined ? undefined : this.text(offset);
  }

  /** The names of all versions that the object defines. */
  get definedVersions(): string[] {
    return [...this.versionDefinitions()].map(({ nameOffset }) => this.text(nameOffset));
  }

  private *versionDefinitions(): Generator<{ readonly number: number; readonly nameOffset: number }> {
    let definition = this.at(dynamicTag.versionDefinitions);
    for (let steps = 0; definition !== undefined && steps < 1000; steps++) {
      const reader = new ByteReader(this.read(definition, 20), 'version definition', 'ELF_MALFORMED', 4);
      const number = reader.u16();
      reader.position = 12;
      const auxiliary = reader.u32();
      const next = reader.u32();
      yield { number, nameOffset: this.word(advance(definition, auxiliary)) };
      definition = next === 0 ? undefined : advance(definition, next);
    }
  }

  private neededVersion(index: number): string {
    const wanted = index & ~hiddenVersion;
    let needed = wanted <= unversioned ? undefined : this.at(dynamicTag.versionNeeds);
    for (let steps = 0; needed !== undefined && steps < 1000; steps++) {
      const reader = new ByteReader(this.read(needed, 16), 'version needs', 'ELF_MALFORMED', 2);
      const count = reader.u16();
      reader.position = 8;
      let auxiliary = advance(needed, reader.u32());
      const next = reader.u32();
      for (let entry = 0; entry < count; entry++) {
        const version = new ByteReader(this.read(auxiliary, 16), 'needed version', 'ELF_MALFORMED', 6);
        const number = version.u16();
        const nameOffset = version.u32();
        if (number === wanted) return this.text(nameOffset);
        auxiliary = advance(auxiliary, version.u32());
      }
      if (next === 0) break;
      needed = advance(needed, next);
    }
    return this.definedVersion(wanted) ?? '';
  }
}

/** Hash function of the GNU hash table. */
function gnuHash(name: string): number {
  let hash = 5381;
  for (const byte of Buffer.from(name, 'latin1')) hash = (Math.imul(hash, 33) + byte) >>> 0;
  return hash;
}
