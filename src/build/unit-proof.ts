// What a patch records about a unit, so that others can repeat how it was found with nothing but the shipped object.
import { createHash } from 'node:crypto';
import type { Hunk, OperandProof, UnitProof } from '../patchfile/index.js';
import { maskCode, type MaskedCode } from './masked-search.js';
import type { ShippedObject } from './shipped-object.js';
import type { Unit } from './unit.js';

/** One proof for each section of the unit's code that holds a hunk. */
export function unitProofs({ file, placement }: Unit, hunks: readonly Hunk[]): UnitProof[] {
  const { unit, sections, isUnique } = placement;
  const addresses = new Set(hunks.map(({ address }) => address));
  const used = new Set(
    unit.functions
      .filter(({ section, offset }) => addresses.has((sections.get(section.index) ?? NaN) + offset))
      .map(({ section }) => section),
  );
  return [...used].map((section) => {
    const code = maskCode(section.bytes, unit.relocations(section));
    return {
      file,
      address: sections.get(section.index) ?? 0,
      size: section.size,
      isUnique: isUnique && section.name === '.text',
      masked: encodeMask(code.mask),
      sha256: maskedDigest(code),
    };
  });
}

/** SHA-256 of the bytes that count, with zeros for the others; hexadecimal. */
export function maskedDigest({ bytes, mask }: MaskedCode): string {
  const counted = bytes.map((byte, index) => (mask[index] === 1 ? byte : 0));
  return createHash('sha256').update(counted).digest('hex');
}

/** The lengths of runs as LEB128 (DWARF 5, section 7.6), beginning with bytes that count; base64. */
function encodeMask(mask: Uint8Array): string {
  const out: number[] = [];
  let counts = 1;
  for (let start = 0; start < mask.length; counts ^= 1) {
    let end = start;
    while (end < mask.length && mask[end] === counts) end++;
    let length = end - start;
    for (; length > 0x7f; length >>>= 7) out.push((length & 0x7f) | 0x80);
    out.push(length);
    start = end;
  }
  return Buffer.from(out).toString('base64');
}

/** The mask of `size` bytes that {@link encodeMask} wrote; undefined where the text does not describe so many. */
export function decodeMask(text: string, size: number): Uint8Array | undefined {
  const mask = new Uint8Array(size);
  let [position, counts, length, shift] = [0, 1, 0, 0];
  for (const byte of Buffer.from(text, 'base64')) {
    length += (byte & 0x7f) * 2 ** shift;
    shift += 7;
    if (byte > 0x7f) continue;
    if (length > size - position) return undefined;
    mask.fill(counts, position, position + length);
    position += length;
    [counts, length, shift] = [counts ^ 1, 0, 0];
  }
  return position === size ? mask : undefined;
}

/** An instruction of the unit that leads to `address`, or to another place of the same section of the unit. */
export function operandIn(
  { placement }: Unit,
  shipped: ShippedObject,
  address: number,
): OperandProof | undefined {
  const { unit, sections, operands } = placement;
  for (const [index, base] of sections) {
    if (address < base || address >= base + (unit.elf.sections[index]?.size ?? 0)) continue;
    const targets = operands.sections.get(index);
    const at = targets?.get(address) ?? targets?.values().next().value;
    if (at !== undefined) return operandProof(shipped, at, address);
  }
  return undefined;
}

export function operandProof(shipped: ShippedObject, at: number, address: number): OperandProof {
  return { at, distance: address - (shipped.int32At(at) + at + 4) };
}
