// Where the jump of a replaced function lies, and whether it can be written at once.
import type { Hunk } from './model.js';

/** e9 rel32. */
export const jumpSize = 5;

const pageSize = 4096;
const endBranch = [0xf3, 0x0f, 0x1e, 0xfa];

/** Bytes from the start of the function: behind endbr64, so that indirect calls stay valid where that is enforced. */
export function jumpOffset({ original, size }: Pick<Hunk, 'original' | 'size'>): number {
  const beginsWithEndBranch = endBranch.every((byte, index) => original[index] === byte);
  return beginsWithEndBranch && size >= endBranch.length + jumpSize ? endBranch.length : 0;
}

/**
 * The kernel writes page by page (access_remote_vm): a jump across a boundary is written in two steps, and a patcher
 * killed between them would leave half a jump (R1). Objects are mapped at whole pages, so the offset in the object tells.
 */
export function jumpCrossesPage(hunk: Pick<Hunk, 'address' | 'original' | 'size'>): boolean {
  return ((hunk.address + jumpOffset(hunk)) % pageSize) + jumpSize > pageSize;
}
