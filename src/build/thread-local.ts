// References of new code to thread-local data: through the object's own slots, or by offsets in the object's own block.
// Access models and relaxations: Drepper, "ELF Handling For Thread-Local Storage"; x86-64 psABI, "Thread-Local Storage".
import { relocationName, relocationType, type ElfRelocation, type ThreadSlot } from '../elf/index.js';
import { baseName, type ObjectFunction } from './code-object.js';
import { writeOperand } from './operand.js';
import type { PatchImage, Place } from './patch-image.js';
import type { Refusals } from './result.js';
import type { SymbolResolver } from './symbol-resolver.js';
import type { ShippedObject } from './shipped-object.js';
import type { Unit } from './unit.js';

const { pc32, tlsGd, tlsLd, dtpOff32, gotTpOff, tpOff32, gotPc32TlsDesc, tlsDescCall } = relocationType;

const threadTypes: ReadonlySet<number> = new Set([
  tlsGd,
  tlsLd,
  dtpOff32,
  gotTpOff,
  tpOff32,
  gotPc32TlsDesc,
  tlsDescCall,
]);

export const isThreadLocal = ({ type }: ElfRelocation): boolean => threadTypes.has(type);

/** A datum that a slot of the object names, or a place in the object's own thread-local block. */
type ThreadDatum = { readonly named: string } | { readonly offset: number };

/** A function of the patch whose bytes and relocations are being made. */
export interface CodeInPatch {
  readonly part: ObjectFunction;
  /** Of the function in .text of the patch. */
  readonly offset: number;
  readonly bytes: Buffer;
}

export class ThreadLocalLinker {
  constructor(
    private readonly unit: Unit,
    private readonly shipped: ShippedObject,
    private readonly image: PatchImage,
    private readonly resolver: SymbolResolver,
    private readonly refusals: Refusals,
  ) {}

  /**
   * Links one relocation for which isThreadLocal holds. The result is the offset of the call of __tls_get_addr that
   * went away with it, if any: its relocation means nothing any more.
   */
  link(code: CodeInPatch, relocation: ElfRelocation): number | undefined {
    const { type, offset: at, addend } = relocation;
    if (type === tlsDescCall) return undefined;
    const { isProgram } = this.shipped.binding;
    if (type === tlsLd && isProgram) return localExecBlock(code, at);
    if (type === tlsLd) {
      this.ownBlock(code, at);
      return undefined;
    }
    const datum = this.datum(code.part, relocation);
    if (!datum) return undefined;
    switch (type) {
      case tlsGd:
        return this.generalDynamic(code, at, datum);
      case gotTpOff:
        this.throughSlot(code, at, this.thread('threadOffset', datum), relocation, datum);
        return undefined;
      case gotPc32TlsDesc:
        this.throughSlot(code, at, this.thread('descriptor', datum), relocation, datum);
        return undefined;
      case dtpOff32:
      case tpOff32:
        if ('offset' in datum && (type === dtpOff32 || isProgram)) {
          const distance = isProgram ? this.fromThreadPointer(datum.offset) : datum.offset;
          writeOperand(code.bytes, at, distance + addend);
          return undefined;
        }
    }
    this.refuse(code, relocation, datum);
    return undefined;
  }

  /** Where the datum lies; refused (undefined) where that cannot be told. */
  private datum(user: ObjectFunction, { symbolIndex }: ElfRelocation): ThreadDatum | undefined {
    const symbol = this.unit.patched.symbols[symbolIndex];
    const { name = '', sectionIndex = 0 } = symbol ?? {};
    const { unit: stock, threadSections, externals } = this.unit.placement;
    const hasSlot = [...this.shipped.threadSlots.values()].some((slot) => slot.symbol?.name === name);
    if (hasSlot && symbol?.binding !== 'local') return { named: name };
    if (sectionIndex === 0) {
      const offset = externals.get(name)?.threadOffset ?? this.shipped.threadLocal.get(name);
      if (offset !== undefined) return this.ownDatum(name, offset);
      const message = `${user.name} uses thread-local data ${name} of another object, for which the object has no slot`;
      this.refusals.add('UNRESOLVED_SYMBOL', message, user.name);
      return undefined;
    }
    const base = baseName(name);
    const originals = stock.symbols.filter(
      (candidate) =>
        candidate.type === 'tls' && candidate.sectionIndex !== 0 && baseName(candidate.name) === base,
    );
    const [original, other] = originals;
    if (!original) {
      const message = `${user.name} uses new thread-local data ${base}; the threads that run already have none`;
      this.refusals.add('CHANGED_DATA', message, user.name);
      return undefined;
    }
    if (other) {
      this.refusals.add('AMBIGUOUS', `${user.name} uses ${base}, and the unit has several`, user.name);
      return undefined;
    }
    const section = threadSections.get(original.sectionIndex);
    if (section !== undefined) return this.ownDatum(base, section + original.value);
    const exported = symbol?.binding === 'local' ? undefined : this.shipped.threadLocal.get(name);
    if (exported !== undefined && (this.shipped.binding.isProgram || this.shipped.binding.isSymbolic))
      return this.ownDatum(base, exported);
    const message = `where thread-local ${base} lies cannot be read from the shipped code`;
    this.refusals.add('UNRESOLVED_SYMBOL', message, user.name);
    return undefined;
  }

  private ownDatum(name: string, offset: number): ThreadDatum {
    this.resolver.prove(name, 'operand', `thread-local data of the object at 0x${offset.toString(16)}`);
    return { offset };
  }

  /** A program's block ends at the thread pointer. */
  private fromThreadPointer(offset: number): number {
    return offset - this.shipped.threadBlockSize;
  }

  private find(kind: ThreadSlot['kind'], datum?: ThreadDatum): ThreadSlot | undefined {
    return [...this.shipped.threadSlots.values()].find((slot) => {
      if (slot.kind !== kind) return false;
      if (!datum) return slot.symbol === undefined;
      return 'named' in datum
        ? slot.symbol?.name === datum.named
        : slot.symbol === undefined && slot.offset === datum.offset;
    });
  }

  /** A slot of this kind for the datum: the object's own, or one of the patch made from what the object's own slots hold. */
  private thread(kind: ThreadSlot['kind'], datum: ThreadDatum): Place | undefined {
    const name = 'named' in datum ? datum.named : `thread-local+0x${datum.offset.toString(16)}`;
    const own = this.find(kind, datum);
    if (own) {
      this.resolver.prove(
        name,
        'got',
        `0x${own.address.toString(16)}: thread-local slot of the object`,
        own.address,
      );
      return this.image.objectSymbol(`${name}.${kind}`, own.address, 8, false);
    }
    if ('named' in datum || kind === 'descriptor') return undefined;
    const { offset } = datum;
    const key = `${name}.${kind}`;
    if (kind === 'threadOffset' && this.shipped.binding.isProgram)
      return this.image.threadSlot(key, [{ value: this.fromThreadPointer(offset) }]);
    const model = this.find(kind);
    if (!model) return undefined;
    this.resolver.prove(
      name,
      'got',
      `0x${model.address.toString(16)}: the object's own block`,
      model.address,
    );
    const held = this.image.objectSymbol(`thread-local.${kind}`, model.address, 8, false);
    const words =
      kind === 'pair'
        ? [{ copy: held, value: 0 }, { value: offset }]
        : [{ copy: held, value: offset - model.offset }];
    return this.image.threadSlot(key, words);
  }

  /** `data16 lea slot(%rip),%rdi` and the call behind it; the field is at `at`, the call's own one at `at + 8`. */
  private generalDynamic(code: CodeInPatch, at: number, datum: ThreadDatum): number | undefined {
    const pair = this.shipped.binding.isProgram ? undefined : this.thread('pair', datum);
    if (pair) {
      this.image.relocate('.text', code.offset + at, pc32, pair, -4);
      return undefined;
    }
    // mov %fs:0,%rax; then lea distance(%rax),%rax or add slot(%rip),%rax
    const isOwn = this.shipped.binding.isProgram && 'offset' in datum;
    const tail = isOwn ? '488d80' : '480305';
    code.bytes.write(`64488b042500000000${tail}`, at - 4, 'hex');
    if (isOwn) {
      writeOperand(code.bytes, at + 8, this.fromThreadPointer(datum.offset));
      return at + 8;
    }
    const slot = this.thread('threadOffset', datum);
    if (slot) this.image.relocate('.text', code.offset + at + 8, pc32, slot, -4);
    else this.refuse(code, { type: tlsGd }, datum);
    return at + 8;
  }

  /** `lea slot(%rip),%rdi` and the call behind it: the start of the object's own block. */
  private ownBlock(code: CodeInPatch, at: number): void {
    const pair = this.thread('pair', { offset: 0 });
    if (pair) this.image.relocate('.text', code.offset + at, pc32, pair, -4);
    else this.refuse(code, { type: tlsLd }, { offset: 0 });
  }

  private throughSlot(
    code: CodeInPatch,
    at: number,
    slot: Place | undefined,
    { type, addend }: ElfRelocation,
    datum: ThreadDatum,
  ): void {
    if (slot) this.image.relocate('.text', code.offset + at, pc32, slot, addend);
    else this.refuse(code, { type }, datum);
  }

  private refuse({ part }: CodeInPatch, { type }: Pick<ElfRelocation, 'type'>, datum: ThreadDatum): void {
    const what = 'named' in datum ? datum.named : 'thread-local data of its own';
    const message = `${part.name} needs ${what} by ${relocationName(type)}, and the object has no slot that says where it is`;
    this.refusals.add('UNSUPPORTED_RELOCATION', message, part.name);
  }
}

/** mov %fs:0,%rax in the place of lea and call; the offset of the call's own field is returned. */
function localExecBlock({ bytes }: CodeInPatch, at: number): number {
  const isIndirect = bytes[at + 4] === 0xff;
  bytes.write(`${isIndirect ? '66' : ''}66666664488b042500000000`, at - 3, 'hex');
  return isIndirect ? at + 6 : at + 5;
}
