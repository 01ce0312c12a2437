// Where an x86-64 instruction ends whose operand is relative to its end: that tells what the operand refers to.
// Encodings: Intel SDM volume 2, appendix A.

/** One-byte opcodes with ModRM and an immediate of one byte. */
const byteImmediate: ReadonlySet<number> = new Set([0x6b, 0x80, 0x83, 0xc0, 0xc1, 0xc6]);
/** The same with an immediate of the operand's size. */
const wideImmediate: ReadonlySet<number> = new Set([0x69, 0x81, 0xc7]);
/** Two-byte opcodes (0f xx) with ModRM and an immediate of one byte, as far as kernels use them. */
const secondByteImmediate: ReadonlySet<number> = new Set([0xa4, 0xac, 0xba]);

/** Bytes from the relative field of four bytes at `at` to the end of its instruction: 4 and what immediate follows. */
export function distanceToEnd(code: Uint8Array, at: number): number {
  const [third = 0, opcode = 0, modRm = 0] = code.subarray(Math.max(0, at - 3), at);
  // Only an operand in memory, relative to the end, has something behind it; branches have not.
  if (at < 3 || (modRm & 0xc7) !== 0x05) return 4;
  const extension = (modRm >> 3) & 7;
  if (third === 0x0f) {
    if (secondByteImmediate.has(opcode)) return 5;
    // xadd and cmpxchg16b; the other opcodes of two bytes that are in the tables have no ModRM, so 0f is no part of them.
    if (opcode === 0xc0 || opcode === 0xc1 || (opcode === 0xc7 && extension !== 0)) return 4;
  }
  const isTest = (opcode === 0xf6 || opcode === 0xf7) && extension < 2;
  if (byteImmediate.has(opcode) || (isTest && opcode === 0xf6)) return 5;
  if (!wideImmediate.has(opcode) && !isTest) return 4;
  const isRex = third >= 0x40 && third <= 0x4f;
  const prefix = isRex ? (code[at - 4] ?? 0) : third;
  return prefix === 0x66 ? 6 : 8;
}
