// Walks the stack of one stopped thread or suspended context precisely, to tell a live frame from a stale word.
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
  /** The outermost frame is the function of a context; what the thread did before lies on another stack. */
  readonly endsCoroutine?: boolean;
  /** The function that makecontext was given has returned: nothing goes on here any more. */
  readonly isOver?: boolean;
}

/**
 * The first bytes of glibc's __start_context, to which the function of a new context returns (glibc,
 * sysdeps/unix/sysv/linux/x86_64/__start_context.S): mov %rbx,%rsp; mov (%rsp),%rdi.
 */
const contextStart = 0x243c8b48dc8948n;

function isContextStart(address: bigint, readWord: WordReader): boolean {
  return BigInt.asUintN(56, readWord(address) ?? 0n) === contextStart;
}

const maximumFrames = 4096;
const registerCount = 17;
const stackPointer = 7;
const returnAddress = 16;

/** Index in struct user_regs_struct of each DWARF register 0–16 (System V x86-64 psABI, figure 3.36). */
const userRegisterOfDwarf = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];

/**
 * The frames of a thread with these user_regs_struct registers, or of a context that saved them where it called a
 * function. Never throws because of what the target holds.
 */
export function backtrace(
  registers: BigUint64Array,
  finder: FrameFinder,
  readWord: WordReader,
  wasSaved = false,
): Backtrace {
  let current: (bigint | undefined)[] = userRegisterOfDwarf.map((index) => registers[index]);
  // A context that has not begun yet stands at the start of its function, as if it had been interrupted there.
  let interrupted = !wasSaved || isFunctionStart(current[returnAddress], finder);
  const frames: Frame[] = [];
  while (frames.length < maximumFrames) {
    const instruction = current[returnAddress];
    if (instruction === undefined) return { frames, complete: false };
    // The outermost frame of a thread made by clone() returns to 0 where its entry has no unwind table.
    if (instruction === 0n) return { frames, complete: frames.length > 0 };
    if (!interrupted && isContextStart(instruction, readWord))
      return { frames, complete: true, endsCoroutine: true };
    frames.push({ instruction: remoteAddress(instruction), interrupted });
    // A return address may be the first byte behind its function: the call itself lies before it.
    const lookup = advance(remoteAddress(instruction), interrupted ? 0 : -1);
    const description = found(lookup, finder);
    if (!interrupted && description && isContextStart(BigInt(description.start), readWord))
      return { frames, complete: true, isOver: true };
    const caller = description && callerOf(description, lookup, current, readWord);
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

function isFunctionStart(address: bigint | undefined, finder: FrameFinder): boolean {
  return address !== undefined && found(remoteAddress(address), finder)?.start === Number(address);
}

function found(address: RemoteAddress, finder: FrameFinder): FrameDescription | undefined {
  return unlessDamaged(() => finder(address));
}

function callerOf(
  description: FrameDescription,
  lookup: RemoteAddress,
  current: readonly (bigint | undefined)[],
  readWord: WordReader,
): Caller | 'outermost' | undefined {
  return unlessDamaged(() => applyRules(description, Number(lookup), current, readWord));
}

function unlessDamaged<Result>(read: () => Result): Result | undefined {
  try {
    return read();
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
