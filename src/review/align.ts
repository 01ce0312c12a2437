// Which instructions of an old function are those of its new version.
import type { Instruction } from './disassemble.js';
import type { Names } from './names.js';

export interface CodeLine {
  /** In both versions, only in the old one, only in the new one. */
  readonly mark: ' ' | '-' | '+';
  /** Offsets in the old and the new function, bytes. */
  readonly old?: number;
  readonly new?: number;
  readonly text: string;
}

export interface Code {
  readonly address: number;
  readonly size: number;
  readonly instructions: readonly Instruction[];
}

/** More pairs than this are not compared one by one; no function that a compiler made has so many instructions. */
const mostPairs = 50_000_000;

/**
 * Both versions line by line. Instructions are the same when they do the same with the same things, wherever those
 * lie; a jump inside the function also has to go to the same place.
 */
export function alignCode(before: Code, after: Code, names: Names): CodeLine[] {
  const [oldKeys, newKeys] = [before, after].map((code) =>
    code.instructions.map((instruction) => keyOf(instruction, code, names)),
  );
  const pairs = commonSubsequence(oldKeys ?? [], newKeys ?? []);
  const same = sameTargets(pairs, before, after);
  const lines: CodeLine[] = [];
  let [left, right] = [0, 0];
  for (const [l, r] of [...same, [before.instructions.length, after.instructions.length] as const]) {
    for (; left < l; left++) lines.push(...lineOf('-', before, left, names));
    for (; right < r; right++) lines.push(...lineOf('+', after, right, names));
    const [old, now] = [before.instructions[l], after.instructions[r]];
    if (!old || !now) break;
    const text = textOf(now, after, names);
    lines.push({ mark: ' ', old: old.address - before.address, new: now.address - after.address, text });
    [left, right] = [l + 1, r + 1];
  }
  return lines;
}

/** One version alone. */
export function listCode(code: Code, mark: CodeLine['mark'], names: Names): CodeLine[] {
  return code.instructions.flatMap((_, index) => lineOf(mark, code, index, names));
}

function lineOf(mark: CodeLine['mark'], code: Code, index: number, names: Names): CodeLine[] {
  const instruction = code.instructions[index];
  if (!instruction) return [];
  const offset = instruction.address - code.address;
  const text = textOf(instruction, code, names);
  return [mark === '+' ? { mark, new: offset, text } : { mark, old: offset, text }];
}

/** Where a branch goes within the function, bytes from its start. */
function localTarget({ target, isBranch }: Instruction, { address, size }: Code): number | undefined {
  const isLocal = isBranch && target !== undefined && target >= address && target < address + size;
  return isLocal ? target - address : undefined;
}

function keyOf(instruction: Instruction, code: Code, names: Names): string {
  const { mnemonic, operands, target } = instruction;
  const isInside = localTarget(instruction, code) !== undefined;
  const place = isInside ? '<here>' : target === undefined ? '' : placeOf(target, mnemonic, names);
  return `${mnemonic} ${operands} ${place}`;
}

function textOf(instruction: Instruction, code: Code, names: Names): string {
  const { mnemonic, operands, target } = instruction;
  if (target === undefined) return join(mnemonic, operands);
  const local = localTarget(instruction, code);
  const place = local === undefined ? placeOf(target, mnemonic, names) : `+0x${local.toString(16)}`;
  // A function as the second argument: names may hold the patterns that replace() knows.
  return join(
    mnemonic,
    operands.replace('@', () => place),
  );
}

const placeOf = (target: number, mnemonic: string, names: Names): string =>
  names.at(target, mnemonic.endsWith('lea'));

const join = (mnemonic: string, operands: string): string => `${mnemonic.padEnd(7)} ${operands}`.trimEnd();

type Pair = readonly [number, number];

/** Pairs of indexes of a longest common subsequence, by dynamic programming; equal ends are cut off before. */
function commonSubsequence(left: readonly string[], right: readonly string[]): Pair[] {
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start++;
  let tail = 0;
  const longestTail = Math.min(left.length, right.length) - start;
  while (tail < longestTail && left[left.length - 1 - tail] === right[right.length - 1 - tail]) tail++;
  const [rows, columns] = [left.length - start - tail, right.length - start - tail];
  const pairs: Pair[] = Array.from({ length: start }, (_, index) => [index, index] as const);
  if (rows * columns <= mostPairs) {
    const width = columns + 1;
    const lengths = new Uint32Array((rows + 1) * width);
    const isEqual = (row: number, column: number): boolean => left[start + row] === right[start + column];
    const at = (row: number, column: number): number => lengths[row * width + column] ?? 0;
    for (let row = rows - 1; row >= 0; row--) {
      for (let column = columns - 1; column >= 0; column--) {
        lengths[row * width + column] = isEqual(row, column)
          ? at(row + 1, column + 1) + 1
          : Math.max(at(row + 1, column), at(row, column + 1));
      }
    }
    for (let row = 0, column = 0; row < rows && column < columns;) {
      if (isEqual(row, column)) pairs.push([start + row++, start + column++]);
      else if (at(row + 1, column) >= at(row, column + 1)) row++;
      else column++;
    }
  }
  for (let index = tail; index > 0; index--) pairs.push([left.length - index, right.length - index]);
  return pairs;
}

/** Leaves out jumps whose targets do not correspond. */
function sameTargets(pairs: readonly Pair[], before: Code, after: Code): Pair[] {
  const newOf = new Map<number, number>();
  for (const [left, right] of pairs) {
    const [old, now] = [before.instructions[left], after.instructions[right]];
    if (old && now) newOf.set(old.address - before.address, now.address - after.address);
  }
  const matched = new Set(newOf.values());
  return pairs.filter(([left, right]) => {
    const [old, now] = [before.instructions[left], after.instructions[right]];
    const from = old && localTarget(old, before);
    const to = now && localTarget(now, after);
    if (from === undefined || to === undefined) return true;
    const expected = newOf.get(from);
    return expected === undefined ? !matched.has(to) : expected === to;
  });
}
