// Exception tables of patched functions: which handlers catch what, by references to types and personality routines.
// Compilers reach both through constant pointers: GCC names them DW.ref.NAME, Clang .LNAME.DW.stub.
import { relocationType, type ElfRelocation, type ElfSection } from '../elf/index.js';
import { digest, type CodeObject, type ObjectFunction, type Reference } from './code-object.js';
import { writeOperand } from './operand.js';
import type { PatchImage, Place } from './patch-image.js';
import type { Refusals } from './result.js';
import type { Destination } from './symbol-resolver.js';
import type { ExceptionPlaces } from './unwind.js';

const tableSection = /^\.gcc_except_table(?:\.|$)/;

export type Resolve = (reference: Reference, user: ObjectFunction, addend: number) => Destination | undefined;

export class ExceptionTables {
  private readonly copies = new Map<number, Place>();

  constructor(
    private readonly object: CodeObject,
    private readonly image: PatchImage,
    /** Where a symbol lives whose address is taken. */
    private readonly resolve: Resolve,
    private readonly refusals: Refusals,
  ) {}

  for(user: ObjectFunction): ExceptionPlaces {
    return {
      personality: (relocation) => this.pointer(relocation, user),
      table: (relocation) => this.table(relocation, user),
    };
  }

  /** A slot that holds what the unit's own pointer holds. */
  private pointer(relocation: ElfRelocation, user: ObjectFunction): Place | undefined {
    const { reference, addend } = this.object.resolve(relocation);
    const target =
      reference.kind === 'data'
        ? this.object
            .relocations(reference.section)
            .find(({ offset }) => offset === reference.offset + addend)
        : undefined;
    if (target?.type !== relocationType.abs64) {
      this.refuse('names a handler or a type in a way that is not known', user);
      return undefined;
    }
    const pointed = this.object.resolve(target);
    const destination = this.resolve(pointed.reference, user, pointed.addend);
    if (!destination) return undefined;
    return destination.kind === 'slot' ? destination.slot : this.image.slot(destination.place);
  }

  private table(relocation: ElfRelocation, user: ObjectFunction): Place | undefined {
    const { reference, addend } = this.object.resolve(relocation);
    if (reference.kind !== 'data' || !tableSection.test(reference.section.name)) {
      this.refuse('has its exception table in an unknown place', user);
      return undefined;
    }
    const { symbol, offset } = this.copy(reference.section, user);
    return { symbol, offset: offset + reference.offset + addend };
  }

  private copy(section: ElfSection, user: ObjectFunction): Place {
    const known = this.copies.get(section.index);
    if (known) return known;
    const bytes = Buffer.from(section.bytes);
    const start = this.image.append('.rodata', bytes, Math.max(section.alignment, 4));
    const name = `.Lhandlers.${digest(Buffer.from(`${user.name} ${section.index}`)).slice(0, 8)}`;
    const place = this.image.patchSymbol(name, '.rodata', start, section.size, false);
    this.copies.set(section.index, place);
    for (const relocation of this.object.relocations(section)) {
      if (relocation.type !== relocationType.pc32) {
        this.refuse('has an exception table that is not position-independent', user);
        continue;
      }
      const pointer = this.pointer(relocation, user);
      writeOperand(bytes, relocation.offset, 0);
      if (pointer) this.image.relocate('.rodata', start + relocation.offset, relocationType.pc32, pointer, 0);
    }
    return place;
  }

  private refuse(what: string, user: ObjectFunction): void {
    this.refusals.add('UNWIND_TABLE', `the unwind entry of ${user.name} ${what}`, user.name);
  }
}
