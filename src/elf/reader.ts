// Bounds-checked little-endian reading of untrusted bytes.
import { KcareError, type ErrorCode } from '../base/errors.js';

/** Reads integers from `bytes`; every access outside throws a KcareError with the given code. */
export class ByteReader {
  readonly #view: DataView;

  constructor(
    readonly bytes: Uint8Array,
    readonly what: string,
    private readonly code: ErrorCode = 'ELF_MALFORMED',
    public position = 0,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.bytes.length;
  }

  get atEnd(): boolean {
    return this.position >= this.bytes.length;
  }

  fail(message: string): KcareError {
    return new KcareError(this.code, `${this.what}: ${message}`);
  }

  #take(size: number): number {
    const at = this.position;
    if (!Number.isSafeInteger(at) || at < 0 || at + size > this.bytes.length) {
      throw this.fail(`${size} bytes wanted at offset ${at}, but only ${this.bytes.length} are there`);
    }
    this.position = at + size;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }
  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }
  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }
  i32(): number {
    return this.#view.getInt32(this.#take(4), true);
  }
  bigU64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }
  bigI64(): bigint {
    return this.#view.getBigInt64(this.#take(8), true);
  }

  /** An unsigned 64-bit value that must be exact as a number. */
  u64(): number {
    const value = this.bigU64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.fail(`value ${value.toString()} is too large`);
    return Number(value);
  }

  /** A signed 64-bit value that must be exact as a number. */
  i64(): number {
    const value = this.bigI64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) {
      throw this.fail(`value ${value.toString()} is too large`);
    }
    return Number(value);
  }

  uleb128(): number {
    let result = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.u8();
      result |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) break;
      if (shift > 63n) throw this.fail('LEB128 number too long');
    }
    return Number(result);
  }

  sleb128(): number {
    let result = 0n;
    let shift = 0n;
    for (;;) {
      const byte = this.u8();
      result |= BigInt(byte & 0x7f) << shift;
      shift += 7n;
      if (byte < 0x80) {
        if (byte & 0x40) result -= 1n << shift;
        return Number(result);
      }
      if (shift > 63n) throw this.fail('LEB128 number too long');
    }
  }

  /** A view of the next `size` bytes. */
  slice(size: number): Uint8Array {
    if (!Number.isSafeInteger(size) || size < 0) throw this.fail(`impossible size ${size}`);
    const at = this.#take(size);
    return this.bytes.subarray(at, at + size);
  }

  /** A NUL-terminated string, as Latin-1 so that any bytes survive. */
  cString(): string {
    const end = this.bytes.indexOf(0, this.position);
    if (end < 0) throw this.fail('string without end');
    const text = Buffer.from(this.bytes.buffer, this.bytes.byteOffset + this.position, end - this.position);
    this.position = end + 1;
    return text.toString('latin1');
  }

  align(alignment: number): void {
    this.position = Math.ceil(this.position / alignment) * alignment;
  }
}

/** The NUL-terminated string at `offset` of a string table. */
export function stringAt(table: Uint8Array, offset: number): string {
  return new ByteReader(table, 'string table', 'ELF_MALFORMED', offset).cString();
}
