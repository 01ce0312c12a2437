// Finds compiled code in a linked object by its bytes, with everything that the linker fills in masked out.
import { relocationType, type ElfRelocation } from '../elf/index.js';

export interface MaskedCode {
  readonly bytes: Uint8Array;
  /** 1 where a byte is compared, 0 where the linker may have changed it. */
  readonly mask: Uint8Array;
}

/** Bytes [first, last) around the relocated field that a linker may rewrite, by relocation type. */
const rewrittenRange = new Map<number, readonly [number, number]>([
  [relocationType.abs64, [0, 8]],
  [relocationType.pc64, [0, 8]],
  // The linker relaxes loads of near symbols from the GOT: mov → lea, call *slot → call, jmp *slot → jmp.
  [relocationType.gotPcRelX, [-2, 4]],
  [relocationType.rexGotPcRelX, [-3, 4]],
  [relocationType.gotTpOff, [-3, 4]],
  [relocationType.tlsGd, [-4, 12]],
  [relocationType.tlsLd, [-3, 9]],
  [relocationType.gotPc32TlsDesc, [-3, 4]],
  [relocationType.tlsDescCall, [0, 2]],
]);

export function maskCode(bytes: Uint8Array, relocations: readonly ElfRelocation[]): MaskedCode {
  const mask = new Uint8Array(bytes.length).fill(1);
  for (const { type, offset } of relocations) {
    const [first, last] = rewrittenRange.get(type) ?? [0, 4];
    mask.fill(0, Math.max(0, offset + first), offset + last);
  }
  return { bytes, mask };
}

export function matchesAt(text: Uint8Array, position: number, code: MaskedCode): boolean {
  if (position < 0 || position + code.bytes.length > text.length) return false;
  for (let index = 0; index < code.bytes.length; index++) {
    if (code.mask[index] === 1 && text[position + index] !== code.bytes[index]) return false;
  }
  return true;
}

/** The longest stretch without masked bytes; it is searched first. */
function anchorOf({ mask }: MaskedCode): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let start = 0;
  for (let index = 0; index <= mask.length; index++) {
    if (mask[index] === 1) continue;
    if (index - start > best.length) best = { start, length: index - start };
    start = index + 1;
  }
  return best;
}

/** All offsets in `text`, multiples of `alignment`, at which `code` lies. Empty code is found nowhere. */
export function findCode(text: Uint8Array, code: MaskedCode, alignment: number): number[] {
  const anchor = anchorOf(code);
  if (anchor.length === 0) return [];
  const haystack = Buffer.from(text.buffer, text.byteOffset, text.length);
  const needle = code.bytes.subarray(anchor.start, anchor.start + anchor.length);
  const found: number[] = [];
  for (let at = haystack.indexOf(needle); at >= 0; at = haystack.indexOf(needle, at + 1)) {
    const position = at - anchor.start;
    if (position % alignment === 0 && matchesAt(text, position, code)) found.push(position);
  }
  return found;
}
