// Reads from shipped code where thread-local data lie, through the forms that a linker leaves of the access models.
// Forms and relaxations: Drepper, "ELF Handling For Thread-Local Storage", 4.3 and 5; x86-64 psABI, "TLS relaxations".
import { relocationType, type ElfRelocation, type ThreadSlot } from '../elf/index.js';
import type { ShippedObject } from './shipped-object.js';

const { tlsGd, dtpOff32, gotTpOff, tpOff32, gotPc32TlsDesc } = relocationType;

/** A slot that the code uses, or an offset in the object's own thread-local block. */
export type ThreadOperand = { readonly slot: ThreadSlot } | { readonly offset: number };

/**
 * What the relocated field at address `place` of the shipped code says about the symbol of `relocation`, which lies in
 * `code` at `at` before linking; undefined where it says nothing.
 */
export function readThreadOperand(
  shipped: ShippedObject,
  relocation: ElfRelocation,
  code: Uint8Array,
  place: number,
): ThreadOperand | undefined {
  const { type, addend, offset: at } = relocation;
  const field = (): number => shipped.int32At(place);
  const slotAt = (address: number): ThreadOperand | undefined => {
    const slot = shipped.threadSlots.get(address);
    return slot && { slot };
  };
  const isUntouched = (count: number): boolean => {
    const found = shipped.bytesAt(place - count, count);
    return found.every((byte, index) => byte === code[at - count + index]);
  };
  // In a program the linker turns everything into distances from the thread pointer, which its block ends at.
  const fromThreadPointer = (distance: number): ThreadOperand => ({
    offset: distance + shipped.threadBlockSize,
  });
  switch (type) {
    case tpOff32:
      return fromThreadPointer(field() - addend);
    case dtpOff32:
      return shipped.binding.isProgram ? fromThreadPointer(field() - addend) : { offset: field() - addend };
    case gotTpOff:
      return isUntouched(2) ? slotAt(field() + place + 4) : fromThreadPointer(field());
    case gotPc32TlsDesc: {
      if (isUntouched(3)) return slotAt(field() + place + 4);
      const isLoad = shipped.bytesAt(place - 2, 1)[0] === 0x8b;
      return isLoad ? slotAt(field() + place + 4) : fromThreadPointer(field());
    }
    case tlsGd: {
      if (isUntouched(4)) return slotAt(field() + place + 4);
      // mov %fs:0,%rax, then add slot(%rip),%rax or lea distance(%rax),%rax.
      const operand = place + 8;
      const isAdd = shipped.bytesAt(operand - 2, 1)[0] === 0x03;
      const value = shipped.int32At(operand);
      return isAdd ? slotAt(value + operand + 4) : fromThreadPointer(value);
    }
    default:
      return undefined;
  }
}

/** Whether the call of __tls_get_addr at `at` has become part of something else: its operand then means nothing. */
export function isRelaxedThreadCall(
  shipped: ShippedObject,
  code: Uint8Array,
  at: number,
  place: number,
): boolean {
  const found = shipped.bytesAt(place - 2, 2);
  return found[0] !== code[at - 2] || found[1] !== code[at - 1];
}
