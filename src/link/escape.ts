// Whether a process can come to keep addresses of an image: of a string, a variable or a function of the patch.
import { relocationType } from '../elf/index.js';
import type { Patch, PatchRelocation } from '../patchfile/index.js';

/**
 * False only when all that the patch does with its own addresses is to jump there and to read there. Everything else
 * may leave them behind in the process: variables (they are there to be pointed to), tables of addresses, and `lea`,
 * by which code takes the address of a constant or a function. Unwind entries point to code for the unwinder only.
 */
export function addressesEscape(patch: Patch): boolean {
  let answer = answers.get(patch);
  if (answer === undefined) answers.set(patch, (answer = canEscape(patch)));
  return answer;
}

const answers = new WeakMap<Patch, boolean>();

function canEscape(patch: Patch): boolean {
  if (patch.sections.some(({ name, size }) => (name === '.data' || name === '.bss') && size > 0)) return true;
  const code = patch.sections.find(({ name }) => name === '.text')?.bytes ?? new Uint8Array(0);
  const own = patch.relocations.filter(({ symbol }) => patch.symbols[symbol]?.where === 'patch');
  return own.some((relocation) => takesAddress(relocation, code)) || takesOwnAddress(patch, code);
}

function takesAddress({ section, offset, type }: PatchRelocation, code: Uint8Array): boolean {
  if (section === '.eh_frame') return false;
  const isDisplacement = type === relocationType.pc32 || type === relocationType.plt32;
  return section !== '.text' || !isDisplacement || isLoadOfAddress(code, offset);
}

/** The assembler resolves references within code by itself, and leaves no relocation. */
function takesOwnAddress({ relocations }: Patch, code: Uint8Array): boolean {
  const relocated = new Set(
    relocations.filter(({ section }) => section === '.text').map(({ offset }) => offset),
  );
  const view = new DataView(code.buffer, code.byteOffset, code.length);
  for (let at = 2; at + 4 <= code.length; at++) {
    if (relocated.has(at) || !isLoadOfAddress(code, at)) continue;
    const target = at + 4 + view.getInt32(at, true);
    if (target >= 0 && target <= code.length) return true;
  }
  return false;
}

/** lea displacement(%rip),%register: opcode 8d, then a ModRM byte with mod 0 and r/m 5 (Intel SDM volume 2, table 2-2). */
function isLoadOfAddress(code: Uint8Array, displacement: number): boolean {
  return code[displacement - 2] === 0x8d && ((code[displacement - 1] ?? 0) & 0xc7) === 0x05;
}
