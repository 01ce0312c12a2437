// The package database of rpm, as it is kept since 2020: a table of package headers in an SQLite file.
import { KcareError } from '../base/errors.js';
import { namesOfPath, type InstalledPackage, type PackageDatabase } from './packages.js';
import type { RootView } from './root-view.js';
import { sqliteRows } from './sqlite-table.js';

const places = ['/usr/lib/sysimage/rpm/rpmdb.sqlite', '/var/lib/rpm/rpmdb.sqlite'];
const longestDatabase = 1024 * 1024 * 1024;
const mostEntries = 65_536;
const longestValue = 256;

/** Tags of rpm's include/rpm/rpmtag.h. */
const tags = {
  name: 1000,
  version: 1001,
  release: 1002,
  epoch: 1003,
  directoryIndexes: 1116,
  baseNames: 1117,
  directoryNames: 1118,
};
const types = { int32: 4, string: 6, stringArray: 8, internationalString: 9 };

export interface RpmHeader {
  readonly name: string;
  /** "1:3.0.7-27.el9": with the epoch where there is one. */
  readonly version: string;
  /** Paths of all its files, Latin-1. */
  files(): Generator<string>;
}

export class RpmDatabase implements PackageDatabase {
  private headers: readonly RpmHeader[] | undefined;

  private constructor(private readonly bytes: Buffer) {}

  /** Undefined when the root holds no such database. Throws NOT_PERMITTED. */
  static open(view: RootView): RpmDatabase | undefined {
    for (const place of places) {
      const bytes = view.read(place, longestDatabase);
      if (bytes) return new RpmDatabase(bytes);
    }
    return undefined;
  }

  ownerOf(path: string): InstalledPackage | undefined {
    const names = new Set(namesOfPath(path));
    for (const header of this.all()) {
      for (const file of header.files())
        if (names.has(file)) return { name: header.name, version: header.version };
    }
    return undefined;
  }

  find(name: string): InstalledPackage | undefined {
    const header = this.all().find((one) => one.name === name);
    return header && { name: header.name, version: header.version };
  }

  private all(): readonly RpmHeader[] {
    return (this.headers ??= readRpmHeaders(this.bytes));
  }
}

/** What can be read of a database; the rest of a damaged one is missing. Never throws. */
export function readRpmHeaders(bytes: Buffer): RpmHeader[] {
  const headers: RpmHeader[] = [];
  try {
    for (const [, blob] of sqliteRows(bytes, 'Packages')) {
      const header = Buffer.isBuffer(blob) ? parseRpmHeader(blob) : undefined;
      if (header) headers.push(header);
    }
  } catch (thrown) {
    if (!(thrown instanceof KcareError) && !(thrown instanceof RangeError)) throw thrown;
  }
  return headers;
}

interface Entry {
  readonly type: number;
  readonly offset: number;
  readonly count: number;
}

/** A header as the database keeps it: two counts, an index, and the data. Undefined when it is damaged or names nothing. */
export function parseRpmHeader(blob: Buffer): RpmHeader | undefined {
  if (blob.length < 8) return undefined;
  const [indexCount, dataLength] = [blob.readUInt32BE(0), blob.readUInt32BE(4)];
  const dataStart = 8 + 16 * indexCount;
  if (indexCount > mostEntries || dataStart + dataLength > blob.length) return undefined;
  const data = blob.subarray(dataStart, dataStart + dataLength);
  const entries = new Map<number, Entry>();
  for (let at = 8; at < dataStart; at += 16) {
    const [type, offset, count] = [
      blob.readUInt32BE(at + 4),
      blob.readUInt32BE(at + 8),
      blob.readUInt32BE(at + 12),
    ];
    entries.set(blob.readUInt32BE(at), { type, offset, count });
  }
  const name = stringsOf(data, entries.get(tags.name))[0] ?? '';
  const version = stringsOf(data, entries.get(tags.version))[0] ?? '';
  if (name === '' || version === '') return undefined;
  const release = stringsOf(data, entries.get(tags.release))[0] ?? '';
  const epoch = integersOf(data, entries.get(tags.epoch))[0] ?? 0;
  const full = `${epoch > 0 ? `${epoch}:` : ''}${version}${release === '' ? '' : `-${release}`}`;
  return {
    name: name.slice(0, longestValue),
    version: full.slice(0, longestValue),
    *files() {
      const directories = stringsOf(data, entries.get(tags.directoryNames));
      const indexes = integersOf(data, entries.get(tags.directoryIndexes));
      const names = stringsOf(data, entries.get(tags.baseNames));
      for (const [at, base] of names.entries()) yield `${directories[indexes[at] ?? -1] ?? ''}${base}`;
    },
  };
}

function stringsOf(data: Buffer, entry: Entry | undefined): string[] {
  const isText = entry && [types.string, types.stringArray, types.internationalString].includes(entry.type);
  if (!isText) return [];
  const strings: string[] = [];
  let at = entry.offset;
  while (strings.length < entry.count && at < data.length) {
    const end = data.indexOf(0, at);
    if (end < 0) break;
    strings.push(data.toString('latin1', at, end));
    at = end + 1;
  }
  return strings;
}

function integersOf(data: Buffer, entry: Entry | undefined): number[] {
  if (entry?.type !== types.int32) return [];
  const numbers: number[] = [];
  for (let at = entry.offset; numbers.length < entry.count && at + 4 <= data.length; at += 4)
    numbers.push(data.readUInt32BE(at));
  return numbers;
}
