// The kernel's own table of symbols, read from its unpacked image: what /proc/kallsyms shows, at linked addresses.
// Layout: scripts/kallsyms.c of Linux 6.1.
import { KcareError } from '../base/errors.js';

export interface KallsymsEntry {
  readonly name: string;
  /** As nm prints it; upper case: global. */
  readonly type: string;
  readonly address: bigint;
}

const tokenCount = 256;

/** All symbols, in the order in which the kernel counts those of the same name. Throws ELF_MALFORMED. */
export function readKallsyms(image: Uint8Array): KallsymsEntry[] {
  const bytes = Buffer.from(image.buffer, image.byteOffset, image.byteLength);
  const { tokens, tableStart } = findTokens(bytes);
  const { names, count, namesStart } = findNames(bytes, tokens, tableStart);
  const addresses = findAddresses(bytes, namesStart, count);
  return names.map((text, index) => ({
    type: text.slice(0, 1),
    name: text.slice(1),
    address: addresses[index] ?? 0n,
  }));
}

const fail = (why: string): KcareError =>
  new KcareError('ELF_MALFORMED', `The table of symbols of the kernel cannot be read: ${why}.`);

/** kallsyms_token_table: 256 texts, and behind it kallsyms_token_index with their offsets, 16 bits each. */
function findTokens(bytes: Buffer): { tokens: string[]; tableStart: number } {
  // Digits and letters stand for themselves in the table, one behind the other.
  const digits = Buffer.from(Array.from('0123456789', (digit) => `${digit}\0`).join(''), 'latin1');
  for (let at = bytes.indexOf(digits); at >= 0; at = bytes.indexOf(digits, at + 1)) {
    // '0' is token 48: 48 texts come before.
    let start = at;
    for (let left = '0'.charCodeAt(0); left > 0 && start > 0; left--) {
      start--;
      while (start > 0 && bytes[start - 1] !== 0 && at - start < 4096) start--;
    }
    const tokens: string[] = [];
    const offsets: number[] = [];
    let position = start;
    for (let index = 0; index < tokenCount && position < bytes.length; index++) {
      const end = bytes.indexOf(0, position);
      if (end < 0) break;
      offsets.push(position - start);
      tokens.push(bytes.toString('latin1', position, end));
      position = end + 1;
    }
    const index = Buffer.alloc(tokenCount * 2);
    if (offsets.length !== tokenCount || offsets.some((offset) => offset > 0xffff)) continue;
    offsets.forEach((offset, token) => index.writeUInt16LE(offset, token * 2));
    const found = bytes.subarray(position, position + 16).length === 16 ? bytes.indexOf(index, position) : -1;
    if (found < 0 || found - position > 16) continue;
    return { tokens, tableStart: start };
  }
  throw fail('it has no table of tokens');
}

/**
 * kallsyms_names lies before kallsyms_markers, which holds the offset of each 256th name and lies before the tokens
 * (other tables may come between). A candidate counts when all its names are there and the markers fit them.
 */
function findNames(
  bytes: Buffer,
  tokens: readonly string[],
  tableStart: number,
): { names: string[]; count: number; namesStart: number } {
  // Markers: 0, then ascending 32-bit offsets with steps of some thousand bytes.
  for (let at = (tableStart & ~3) - 8; at > Math.max(0, tableStart - 0x1000000); at -= 4) {
    if (bytes.readUInt32LE(at) !== 0) continue;
    const second = bytes.readUInt32LE(at + 4);
    if (second < 512 || second > 256 * 512) continue;
    const markers = ascending(bytes, at, tableStart);
    if (markers.length < 16) continue;
    const found = namesBefore(bytes, tokens, at, markers);
    if (found) return found;
  }
  throw fail('it has no markers of names');
}

function ascending(bytes: Buffer, start: number, end: number): number[] {
  const values = [bytes.readUInt32LE(start)];
  for (let at = start + 4; at + 4 <= end; at += 4) {
    const value = bytes.readUInt32LE(at);
    const last = values.at(-1) ?? 0;
    if (value <= last + 256 || value > last + 256 * 512) break;
    values.push(value);
  }
  return values;
}

function namesBefore(
  bytes: Buffer,
  tokens: readonly string[],
  markersStart: number,
  markers: readonly number[],
): { names: string[]; count: number; namesStart: number } | undefined {
  const lastMarker = markers.at(-1) ?? 0;
  // The names end up to seven bytes before the markers; where they begin follows from the last marker.
  const latest = markersStart - lastMarker;
  for (let start = latest & ~7; start > latest - 256 * 512 && start > 8; start -= 8) {
    // kallsyms_num_syms is right before the names.
    const count = bytes.readUInt32LE(start - 8);
    if (Math.ceil(count / 256) !== markers.length || bytes.readUInt32LE(start - 4) !== 0) continue;
    const names = decodeNames(bytes, tokens, start, count, markersStart, markers);
    if (names) return { names, count, namesStart: start };
  }
  return undefined;
}

function decodeNames(
  bytes: Buffer,
  tokens: readonly string[],
  start: number,
  count: number,
  end: number,
  markers: readonly number[],
): string[] | undefined {
  const names: string[] = [];
  let position = start;
  for (let index = 0; index < count; index++) {
    if (index % 256 === 0 && markers[index / 256] !== position - start) return undefined;
    let length = bytes[position++] ?? 0;
    // Lengths above 127 take two bytes since Linux 6.1.
    if ((length & 0x80) !== 0) length = (length & 0x7f) | ((bytes[position++] ?? 0) << 7);
    if (length === 0 || position + length > end) return undefined;
    let text = '';
    for (let token = 0; token < length; token++) text += tokens[bytes[position + token] ?? 0] ?? '';
    names.push(text);
    position += length;
  }
  return end - position < 8 ? names : undefined;
}

/** kallsyms_offsets and kallsyms_relative_base, right before the number of symbols (Linux before 6.4). */
function findAddresses(bytes: Buffer, namesStart: number, count: number): bigint[] {
  const baseAt = namesStart - 16;
  const base = bytes.readBigUInt64LE(baseAt);
  const offsetsAt = baseAt - Math.ceil((count * 4) / 8) * 8;
  if (base >> 32n !== 0xffffffffn || offsetsAt < 0) throw fail('its base address is not where it should be');
  return Array.from({ length: count }, (_, index) => {
    const offset = bytes.readInt32LE(offsetsAt + index * 4);
    // CONFIG_KALLSYMS_ABSOLUTE_PERCPU: what is not negative is the value itself.
    return offset >= 0 ? BigInt(offset) : base - 1n - BigInt(offset);
  });
}
