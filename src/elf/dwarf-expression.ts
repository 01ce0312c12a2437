// DWARF expressions as unwind tables use them (PLT stubs and signal frames); DWARF 5, section 2.5.
import { ByteReader } from './reader.js';

export interface ExpressionMachine {
  /** Value of a DWARF register; undefined when it is not known. */
  readonly register: (index: number) => bigint | undefined;
  /** The 8-byte word at an address of the target; undefined when it cannot be read. */
  readonly word: (address: bigint) => bigint | undefined;
}

const maximumSteps = 1000;
const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);
const signed = (value: bigint): bigint => BigInt.asIntN(64, value);

const binaryOperators: Readonly<Record<number, (left: bigint, right: bigint) => bigint>> = {
  0x1a: (left, right) => left & right,
  0x1c: (left, right) => wrap(left - right),
  0x1e: (left, right) => wrap(left * right),
  0x21: (left, right) => left | right,
  0x22: (left, right) => wrap(left + right),
  0x24: (left, right) => (right > 63n ? 0n : wrap(left << right)),
  0x25: (left, right) => (right > 63n ? 0n : left >> right),
  0x27: (left, right) => left ^ right,
  0x29: (left, right) => (left === right ? 1n : 0n),
  0x2a: (left, right) => (signed(left) >= signed(right) ? 1n : 0n),
  0x2b: (left, right) => (signed(left) > signed(right) ? 1n : 0n),
  0x2c: (left, right) => (signed(left) <= signed(right) ? 1n : 0n),
  0x2d: (left, right) => (signed(left) < signed(right) ? 1n : 0n),
  0x2e: (left, right) => (left !== right ? 1n : 0n),
};

/** Runs an expression; undefined when it needs something unknown. Throws ELF_MALFORMED when it is damaged. */
export function evaluateExpression(
  expression: Uint8Array,
  machine: ExpressionMachine,
  initial: readonly bigint[] = [],
): bigint | undefined {
  const reader = new ByteReader(expression, 'DWARF expression');
  const stack = [...initial];
  const pop = (): bigint => {
    const value = stack.pop();
    if (value === undefined) throw reader.fail('the stack is empty');
    return value;
  };
  for (let step = 0; !reader.atEnd; step++) {
    if (step > maximumSteps) throw reader.fail('too long');
    const operation = reader.u8();
    const binary = binaryOperators[operation];
    if (binary) {
      const right = pop();
      stack.push(binary(pop(), right));
    } else if (operation >= 0x30 && operation <= 0x4f) {
      stack.push(BigInt(operation - 0x30)); // DW_OP_lit
    } else if (operation >= 0x70 && operation <= 0x8f) {
      const value = machine.register(operation - 0x70); // DW_OP_breg
      if (value === undefined) return undefined;
      stack.push(wrap(value + BigInt(reader.sleb128())));
    } else if (operation === 0x06) {
      const value = machine.word(pop()); // DW_OP_deref
      if (value === undefined) return undefined;
      stack.push(value);
    } else if (operation === 0x12) {
      const value = pop(); // DW_OP_dup
      stack.push(value, value);
    } else if (operation === 0x13) {
      pop(); // DW_OP_drop
    } else if (operation === 0x16) {
      const top = pop(); // DW_OP_swap
      stack.push(top, pop());
    } else if (operation === 0x23) {
      stack.push(wrap(pop() + BigInt(reader.uleb128()))); // DW_OP_plus_uconst
    } else {
      stack.push(readConstant(reader, operation));
    }
  }
  return pop();
}

function readConstant(reader: ByteReader, operation: number): bigint {
  switch (operation) {
    case 0x08:
      return BigInt(reader.u8());
    case 0x09:
      return wrap(BigInt((reader.u8() << 24) >> 24));
    case 0x0a:
      return BigInt(reader.u16());
    case 0x0b:
      return wrap(BigInt((reader.u16() << 16) >> 16));
    case 0x0c:
      return BigInt(reader.u32());
    case 0x0d:
      return wrap(BigInt(reader.i32()));
    case 0x10:
      return BigInt(reader.uleb128());
    case 0x11:
      return wrap(BigInt(reader.sleb128()));
    default:
      throw reader.fail(`unknown operation 0x${operation.toString(16)}`);
  }
}
