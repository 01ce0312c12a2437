// Walks the stack of one stopped thread precisely, to tell a live frame from a stale word.
import { advance, remoteAddress, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { evaluateExpression, frameRulesAt, type FrameDescription, type RegisterRule } from '../elf/index.js';
import type { FrameFinder } from './frames.js';

/** Reads one 8-byte word of the target; undefined when it cannot be read. */
export type WordReader = (address: bigint) => bigint | undefined;

export interface Frame {
  /** Where the thread is in this frame: for the first frame the instruction pointer, else a return address. */
  readonly instruction: RemoteAddress;
  /** The address was interrupted, not called from: it need not follow a call instruction. */
  readonly interrupted: boolean;
}

export interface Backtrace {
  readonly frames: readonly Frame[];
  /** The walk reached the outermost frame; without that nothing may be concluded from what is missing. */
  readonly complete: boolean;
}

const maximumFrames = 4096;
const registerCount = 17;
const stackPointer = 7;
const returnAddress = 16;

/** Index in struct user_regs_struct of each DWARF register 0–16 (System V x86-64 psABI, figure 3.36). */
const userRegisterOfDwarf = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];

/** The frames of a thread with these user_regs_struct registers. Never throws because of what the target holds. */
export function backtrace(registers: BigUint64Array, finder: FrameFinder, readWord: WordReader): Backtrace {
  let current: (bigint | undefined)[] = userRegisterOfDwarf.map((index) => registers[index]);
  let interrupted = true;
  const frames: Frame[] = [];
  while (frames.length < maximumFrames) {
    const instruction = current[returnAddress];
    if (instruction === undefined) return { frames, complete: false };
    // The outermost frame of a thread made by clone() returns to 0 where its entry has no unwind table.
    if (instruction === 0n) return { frames, complete: frames.length > 0 };
    frames.push({ instruction: remoteAddress(instruction), interrupted });
    // A return address may be the first byte behind its function: the call itself lies before it.
    const lookup = advance(remoteAddress(instruction), interrupted ? 0 : -1);
    const caller = callerOf(lookup, current, finder, readWord);
    if (caller === undefined) return { frames, complete: false };
    if (caller === 'outermost') return { frames, complete: true };
    const moved = (caller.registers[stackPointer] ?? 0n) > (current[stackPointer] ?? 0n);
    // Only a signal frame may lead to a lower address (from the alternate stack to the ordinary one).
    if (!moved && !caller.throughSignal) return { frames, complete: false };
    current = caller.registers;
    interrupted = caller.throughSignal;
  }
  return { frames, complete: false };
}

interface Caller {
  readonly registers: (bigint | undefined)[];
  readonly throughSignal: boolean;
}

function callerOf(
  lookup: RemoteAddress,
  current: readonly (bigint | undefined)[],
  finder: FrameFinder,
  readWord: WordReader,
): Caller | 'outermost' | undefined {
  try {
    const description = finder(lookup);
    return description && applyRules(description, Number(lookup), current, readWord);
  } catch (error) {
    if (error instanceof KcareError) return undefined;
    throw error;
  }
}

function applyRules(
  description: FrameDescription,
  address: number,
  current: readonly (bigint | undefined)[],
  readWord: WordReader,
): Caller | 'outermost' | undefined {
  const rules = frameRulesAt(description, address);
  const machine = { register: (index: number) => current[index], word: readWord };
  const base = rules.cfa.kind === 'register' ? current[rules.cfa.register] : undefined;
  const cfa =
    rules.cfa.kind === 'expression'
      ? evaluateExpression(rules.cfa.expression, machine)
      : base !== undefined
        ? BigInt.asUintN(64, base + BigInt(rules.cfa.offset))
        : undefined;
  if (cfa === undefined) return undefined;
  const recover = (register: number, rule: RegisterRule): bigint | undefined => {
    switch (rule.kind) {
      case 'undefined':
        return undefined;
      case 'sameValue':
        return current[register];
      case 'offset':
        return readWord(BigInt.asUintN(64, cfa + BigInt(rule.offset)));
      case 'valueOffset':
        return BigInt.asUintN(64, cfa + BigInt(rule.offset));
      case 'register':
        return current[rule.register];
      case 'expression': {
        const slot = evaluateExpression(rule.expression, machine, [cfa]);
        return slot === undefined ? undefined : readWord(slot);
      }
      case 'valueExpression':
        return evaluateExpression(rule.expression, machine, [cfa]);
    }
  };
  const returnRule = rules.registers.get(description.common.returnRegister);
  if (returnRule?.kind === 'undefined') return 'outermost';
  if (!returnRule) return undefined;
  const registers = Array.from({ length: registerCount }, (_, index) => {
    if (index === returnAddress) return recover(index, returnRule);
    const rule = rules.registers.get(index);
    if (rule) return recover(index, rule);
    return index === stackPointer ? cfa : current[index];
  });
  return { registers, throughSignal: description.common.isSignalFrame };
}
