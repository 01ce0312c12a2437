// The few x86-64 instruction forms that decide how a relocated field may be used.
// Encodings: Intel SDM volume 2; relaxations: x86-64 psABI, "Optimize GOTPCRELX Relocations".

/** What an instruction does with the 4-byte field that refers to a symbol. */
export type Use =
  /** Calls the symbol or jumps to it. */
  | 'branch'
  /** Calls or jumps to what a slot holds. */
  | 'slot branch'
  /** Anything else: a load from a slot or of an address. */
  | 'value';

/** The use of the field at `at`. */
export function useOf(code: Uint8Array, at: number): Use {
  const [first, second] = [code[at - 2] ?? 0, code[at - 1] ?? 0];
  if (second === 0xe8 || second === 0xe9) return 'branch';
  if (first === 0x0f && second >= 0x80 && second <= 0x8f) return 'branch';
  if (first === 0xff && (second === 0x15 || second === 0x25)) return 'slot branch';
  return 'value';
}

/**
 * Turns a load from a GOT slot into direct use of the symbol, in place: mov → lea, call *slot → call, jmp *slot → jmp.
 * Returns the offset of the field to relocate, or undefined (nothing changed) where the instruction has no such form.
 */
export function relaxLoad(code: Uint8Array, at: number): number | undefined {
  const [opcode, operand] = [code[at - 2] ?? 0, code[at - 1] ?? 0];
  if (opcode === 0x8b && (operand & 0xc7) === 0x05) {
    code[at - 2] = 0x8d;
    return at;
  }
  if (opcode === 0xff && operand === 0x15) {
    code[at - 2] = 0x67;
    code[at - 1] = 0xe8;
    return at;
  }
  if (opcode === 0xff && operand === 0x25) {
    code[at - 2] = 0xe9;
    code[at + 3] = 0x90;
    return at - 1;
  }
  return undefined;
}

/** Whether code loads its own first address by `lea`: no relocation shows that, because the assembler resolves it. */
export function takesOwnAddress(code: {
  readonly bytes: Uint8Array;
  readonly relocations: readonly { readonly offset: number }[];
}): boolean {
  const { bytes, relocations } = code;
  const relocated = new Set(relocations.map(({ offset }) => offset));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 2; at + 4 <= bytes.length; at++) {
    if (bytes[at - 2] !== 0x8d || ((bytes[at - 1] ?? 0) & 0xc7) !== 0x05 || relocated.has(at)) continue;
    if (view.getInt32(at, true) === -(at + 4)) return true;
  }
  return false;
}
