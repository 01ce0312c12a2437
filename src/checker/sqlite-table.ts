// Reads the rows of one table of an SQLite 3 file (sqlite.org/fileformat2.html): what the rpm database is kept in.
import { KcareError } from '../base/errors.js';

const magic = 'SQLite format 3\0';
const leafTable = 0x0d;
const interiorTable = 0x05;
const deepest = 20;

export class SqliteError extends KcareError {
  constructor(problem: string) {
    super('FILE_MISSING', `The SQLite file cannot be read: ${problem}.`);
  }
}

type Value = number | string | Buffer | null;

/** The rows of `table`, each a list of its columns' values. Throws SqliteError when the file is damaged. */
export function* sqliteRows(bytes: Buffer, table: string): Generator<readonly Value[]> {
  const file = new SqliteFile(bytes);
  for (const [type, name, , rootPage] of file.rows(1)) {
    if (type === 'table' && name === table && typeof rootPage === 'number') {
      yield* file.rows(rootPage);
      return;
    }
  }
  throw new SqliteError(`it has no table ${table}`);
}

class SqliteFile {
  private readonly pageSize: number;
  /** Bytes of a page that the B-tree uses. */
  private readonly usable: number;
  private readonly visited = new Set<number>();

  constructor(private readonly bytes: Buffer) {
    if (bytes.length < 512 || bytes.toString('latin1', 0, 16) !== magic)
      throw new SqliteError('no such file');
    const size = bytes.readUInt16BE(16);
    this.pageSize = size === 1 ? 65_536 : size;
    this.usable = this.pageSize - bytes.readUInt8(20);
    if (this.pageSize < 512 || this.usable < 480) throw new SqliteError('impossible page size');
  }

  rows(root: number): Generator<readonly Value[]> {
    this.visited.clear();
    return this.rowsOfPage(root, 0);
  }

  private *rowsOfPage(number: number, depth: number): Generator<readonly Value[]> {
    // A page that leads back to itself would never end.
    if (depth > deepest || this.visited.has(number)) throw new SqliteError('its pages lead in a circle');
    this.visited.add(number);
    const page = this.page(number);
    const header = number === 1 ? 100 : 0;
    const type = page[header];
    if (type !== leafTable && type !== interiorTable) throw new SqliteError('a page is of no table');
    const count = page.readUInt16BE(header + 3);
    const pointers = header + (type === leafTable ? 8 : 12);
    if (pointers + 2 * count > page.length) throw new SqliteError('too many cells');
    for (let index = 0; index < count; index++) {
      const cell = page.readUInt16BE(pointers + 2 * index);
      if (cell + 4 > page.length) throw new SqliteError('a cell lies outside');
      if (type === interiorTable) yield* this.rowsOfPage(page.readUInt32BE(cell), depth + 1);
      else yield parseRecord(this.payload(page, cell));
    }
    if (type === interiorTable) yield* this.rowsOfPage(page.readUInt32BE(header + 8), depth + 1);
  }

  private page(number: number): Buffer {
    const start = (number - 1) * this.pageSize;
    if (number < 1 || start + this.pageSize > this.bytes.length) throw new SqliteError('a page is missing');
    return this.bytes.subarray(start, start + this.pageSize);
  }

  private payload(page: Buffer, cell: number): Buffer {
    const cursor = new Cursor(page, cell);
    const length = cursor.varint();
    cursor.varint();
    const most = this.usable - 35;
    if (length > this.bytes.length) throw new SqliteError('a row is larger than the file');
    if (length <= most) return cursor.take(length);
    const least = Math.floor(((this.usable - 12) * 32) / 255) - 23;
    const fitted = least + ((length - least) % (this.usable - 4));
    const parts = [cursor.take(fitted <= most ? fitted : least)];
    let missing = length - (parts[0]?.length ?? 0);
    let next = cursor.take(4).readUInt32BE(0);
    while (missing > 0) {
      const overflow = this.page(next);
      next = overflow.readUInt32BE(0);
      const part = overflow.subarray(4, Math.min(this.usable, 4 + missing));
      parts.push(part);
      missing -= part.length;
    }
    return Buffer.concat(parts);
  }
}

class Cursor {
  constructor(
    private readonly bytes: Buffer,
    public at: number,
  ) {}

  take(length: number): Buffer {
    if (length < 0 || this.at + length > this.bytes.length) throw new SqliteError('a row is cut off');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  /** Exact up to 2^53. */
  varint(): number {
    let value = 0;
    for (let index = 0; index < 9; index++) {
      const byte = this.take(1).readUInt8(0);
      if (index === 8) return value * 256 + byte;
      value = value * 128 + (byte & 0x7f);
      if (byte < 0x80) break;
    }
    return value;
  }
}

function parseRecord(payload: Buffer): readonly Value[] {
  const header = new Cursor(payload, 0);
  const headerEnd = header.varint();
  const body = new Cursor(payload, headerEnd);
  const values: Value[] = [];
  while (header.at < headerEnd) values.push(valueOf(header.varint(), body));
  return values;
}

const integerSizes = [0, 1, 2, 3, 4, 6, 8];

function valueOf(type: number, body: Cursor): Value {
  if (type === 0) return null;
  if (type === 8 || type === 9) return type - 8;
  if (type === 7) return body.take(8).readDoubleBE(0);
  if (type >= 12) {
    const bytes = body.take(Math.floor((type - 12) / 2));
    return type % 2 === 0 ? bytes : bytes.toString('utf8');
  }
  const size = integerSizes[type];
  if (size === undefined) throw new SqliteError('a value is of no type');
  const bytes = body.take(size);
  return size === 8 ? Number(bytes.readBigInt64BE(0)) : bytes.readIntBE(0, size);
}
