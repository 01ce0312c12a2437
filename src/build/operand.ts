// Writes the 32-bit operands that linking fixes; where and what comes from object files, and may be anything.
import { KcareError } from '../base/errors.js';

/** Throws ELF_MALFORMED when `value` has more than 32 bits or `at` lies outside. */
export function writeOperand(bytes: Buffer, at: number, value: number): void {
  if (
    !Number.isInteger(at) ||
    at < 0 ||
    at + 4 > bytes.length ||
    value !== Math.trunc(value) ||
    (value | 0) !== value
  ) {
    throw new KcareError(
      'ELF_MALFORMED',
      `an operand of ${value} at offset ${at} of ${bytes.length} bytes cannot be`,
    );
  }
  bytes.writeInt32LE(value, at);
}
