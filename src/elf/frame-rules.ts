// Call frame instructions → the rules that recover the caller's registers at one address (DWARF 5, section 6.4.2).
import { ByteReader } from './reader.js';
import type { FrameDescription } from './eh-frame.js';

export type RegisterRule =
  | { readonly kind: 'undefined' }
  | { readonly kind: 'sameValue' }
  /** Saved in memory at CFA + offset. */
  | { readonly kind: 'offset'; readonly offset: number }
  /** The value is CFA + offset. */
  | { readonly kind: 'valueOffset'; readonly offset: number }
  | { readonly kind: 'register'; readonly register: number }
  /** Saved in memory at the address that the expression gives. */
  | { readonly kind: 'expression'; readonly expression: Uint8Array }
  | { readonly kind: 'valueExpression'; readonly expression: Uint8Array };

/** The canonical frame address: register + offset, or an expression. */
export type CfaRule =
  | { readonly kind: 'register'; readonly register: number; readonly offset: number }
  | { readonly kind: 'expression'; readonly expression: Uint8Array };

export interface FrameRules {
  readonly cfa: CfaRule;
  /** By DWARF register number; registers without a rule keep their value. */
  readonly registers: ReadonlyMap<number, RegisterRule>;
}

/** Compilers nest states a few deep; x86-64 has DWARF registers up to 145 (psABI, figure 3.36). */
const mostRemembered = 64;
const highestRegister = 255;

interface State {
  cfa: CfaRule | undefined;
  registers: Map<number, RegisterRule>;
}

/** The rules in force at `address`, which lies in `description`. Throws ELF_MALFORMED on damaged instructions. */
export function frameRulesAt(description: FrameDescription, address: number): FrameRules {
  const { common } = description;
  const initial: State = { cfa: undefined, registers: new Map() };
  run(common.instructions, description, initial, initial, Infinity);
  const state: State = { cfa: initial.cfa, registers: new Map(initial.registers) };
  run(description.instructions, description, state, initial, address - description.start);
  if (!state.cfa)
    throw new ByteReader(common.instructions, '.eh_frame').fail('no rule for the frame address');
  return { cfa: state.cfa, registers: state.registers };
}

/** Executes instructions until the location passes `target` bytes behind the start of the function. */
function run(
  instructions: Uint8Array,
  { common }: FrameDescription,
  state: State,
  initial: Readonly<State>,
  target: number,
): void {
  const reader = new ByteReader(instructions, '.eh_frame instructions');
  const remembered: State[] = [];
  let location = 0;
  const offset = (): number => reader.uleb128() * common.dataAlignment;
  const signedOffset = (): number => reader.sleb128() * common.dataAlignment;
  const set = (register: number, rule: RegisterRule): void => {
    if (register > highestRegister) throw reader.fail(`register ${register}`);
    state.registers.set(register, rule);
  };
  const restore = (register: number): void => {
    const rule = initial.registers.get(register);
    if (rule) state.registers.set(register, rule);
    else state.registers.delete(register);
  };
  const cfaRegister = (): { register: number; offset: number } => {
    if (state.cfa?.kind !== 'register') throw reader.fail('the frame address is not a register plus offset');
    return state.cfa;
  };
  while (!reader.atEnd) {
    const byte = reader.u8();
    const operand = byte & 0x3f;
    switch (byte & 0xc0) {
      case 0x40:
        location += operand * common.codeAlignment;
        if (location > target) return;
        continue;
      case 0x80:
        set(operand, { kind: 'offset', offset: offset() });
        continue;
      case 0xc0:
        restore(operand);
        continue;
    }
    switch (byte) {
      case 0x00: // DW_CFA_nop
        break;
      case 0x02: // DW_CFA_advance_loc1
      case 0x03: // DW_CFA_advance_loc2
      case 0x04: // DW_CFA_advance_loc4
        location +=
          (byte === 2 ? reader.u8() : byte === 3 ? reader.u16() : reader.u32()) * common.codeAlignment;
        if (location > target) return;
        break;
      case 0x05: // DW_CFA_offset_extended
        set(reader.uleb128(), { kind: 'offset', offset: offset() });
        break;
      case 0x06: // DW_CFA_restore_extended
        restore(reader.uleb128());
        break;
      case 0x07: // DW_CFA_undefined
        set(reader.uleb128(), { kind: 'undefined' });
        break;
      case 0x08: // DW_CFA_same_value
        set(reader.uleb128(), { kind: 'sameValue' });
        break;
      case 0x09: // DW_CFA_register
        set(reader.uleb128(), { kind: 'register', register: reader.uleb128() });
        break;
      case 0x0a: // DW_CFA_remember_state
        if (remembered.length >= mostRemembered) throw reader.fail('too many states remembered');
        remembered.push({ cfa: state.cfa, registers: new Map(state.registers) });
        break;
      case 0x0b: {
        // DW_CFA_restore_state
        const previous = remembered.pop();
        if (!previous) throw reader.fail('state restored that was not remembered');
        state.cfa = previous.cfa;
        state.registers = previous.registers;
        break;
      }
      case 0x0c: // DW_CFA_def_cfa
        state.cfa = { kind: 'register', register: reader.uleb128(), offset: reader.uleb128() };
        break;
      case 0x0d: // DW_CFA_def_cfa_register
        state.cfa = { kind: 'register', register: reader.uleb128(), offset: cfaRegister().offset };
        break;
      case 0x0e: // DW_CFA_def_cfa_offset
        state.cfa = { kind: 'register', register: cfaRegister().register, offset: reader.uleb128() };
        break;
      case 0x0f: // DW_CFA_def_cfa_expression
        state.cfa = { kind: 'expression', expression: reader.slice(reader.uleb128()) };
        break;
      case 0x10: // DW_CFA_expression
        set(reader.uleb128(), { kind: 'expression', expression: reader.slice(reader.uleb128()) });
        break;
      case 0x11: // DW_CFA_offset_extended_sf
        set(reader.uleb128(), { kind: 'offset', offset: signedOffset() });
        break;
      case 0x12: // DW_CFA_def_cfa_sf
        state.cfa = { kind: 'register', register: reader.uleb128(), offset: signedOffset() };
        break;
      case 0x13: // DW_CFA_def_cfa_offset_sf
        state.cfa = { kind: 'register', register: cfaRegister().register, offset: signedOffset() };
        break;
      case 0x14: // DW_CFA_val_offset
        set(reader.uleb128(), { kind: 'valueOffset', offset: offset() });
        break;
      case 0x15: // DW_CFA_val_offset_sf
        set(reader.uleb128(), { kind: 'valueOffset', offset: signedOffset() });
        break;
      case 0x16: // DW_CFA_val_expression
        set(reader.uleb128(), { kind: 'valueExpression', expression: reader.slice(reader.uleb128()) });
        break;
      case 0x2e: // DW_CFA_GNU_args_size
        reader.uleb128();
        break;
      default:
        throw reader.fail(`unknown call frame instruction 0x${byte.toString(16)}`);
    }
  }
}
