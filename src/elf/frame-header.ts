// .eh_frame_hdr: the sorted table that leads from an address to its unwind entry (LSB core specification).
import { ByteReader } from './reader.js';

/** Pointers relative to the header itself, signed 32 bit: the one encoding that linkers write. */
const tableEncoding = 0x3b;

export interface FrameIndex {
  /** Number of entries. */
  readonly count: number;
  /** Offset of the table in the header, bytes; entries are two signed 32-bit words (address, record). */
  readonly tableOffset: number;
}

/** Reads the fixed part (at least 12 bytes); undefined when the header has no table that we can search. */
export function parseFrameIndex(bytes: Uint8Array): FrameIndex | undefined {
  const reader = new ByteReader(bytes, '.eh_frame_hdr');
  const version = reader.u8();
  const framePointerEncoding = reader.u8();
  const countEncoding = reader.u8();
  const encoding = reader.u8();
  if (
    version !== 1 ||
    encoding !== tableEncoding ||
    countEncoding !== 3 ||
    (framePointerEncoding & 0x0f) !== 0x0b
  ) {
    return undefined;
  }
  reader.i32();
  return { count: reader.u32(), tableOffset: reader.position };
}

/**
 * Binary search: offset of the unwind record for `address`, relative to the header, or undefined. Both the address
 * and the result are relative to the header; `entry` gives the two words of the entry with that index.
 */
export function findFrameRecord(
  count: number,
  address: number,
  entry: (index: number) => { readonly address: number; readonly record: number },
): number | undefined {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entry(middle).address <= address) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? undefined : entry(low - 1).record;
}
