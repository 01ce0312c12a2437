// Unwind entries of the included functions, so that debuggers and exceptions pass through patched code.
import { relocationType, type ElfRelocation } from '../elf/index.js';
import type { CodeObject, ObjectFunction } from './code-object.js';
import { frameEntryOf, type FrameEntry } from './frame-entries.js';
import { writeOperand } from './operand.js';
import type { PatchImage, Place } from './patch-image.js';
import type { Refusals } from './result.js';

/** DW_EH_PE_pcrel | DW_EH_PE_sdata4: how position-independent code names places. */
const pcRelative4 = 0x1b;

/** What the exception handling of a function refers to; undefined where that is refused, which is said there. */
export interface ExceptionPlaces {
  /** The slot with the address of the personality routine. */
  readonly personality: (relocation: ElfRelocation) => Place | undefined;
  /** The exception table (language-specific data area), copied into the patch. */
  readonly table: (relocation: ElfRelocation) => Place | undefined;
}

/** Builds one .eh_frame of all units; call `finish` last. */
export class UnwindBuilder {
  private readonly commons = new Map<string, number>();

  constructor(
    private readonly image: PatchImage,
    private readonly refusals: Refusals,
  ) {}

  /** Adds the entry of `part`, which now lies at `place`. A function without an entry is refused. */
  add(object: CodeObject, part: ObjectFunction, place: Place, places: ExceptionPlaces): void {
    const entry = frameEntryOf(object, part);
    if (!entry) {
      this.refusals.add('UNWIND_TABLE', `${part.name} has no unwind entry`, part.name);
      return;
    }
    const { description, own, common } = entry;
    const isRelative = [...own, ...common].every(({ type }) => type === relocationType.pc32);
    if (
      own.length > 1 ||
      common.length > 1 ||
      !isRelative ||
      description.common.pointerEncoding !== pcRelative4
    ) {
      const message = `the unwind entry of ${part.name} is not of the kind of position-independent code`;
      this.refusals.add('UNWIND_TABLE', message, part.name);
      return;
    }
    this.append(entry, place, places);
  }

  private append(
    { section, description, own: [table], common: [personality] }: FrameEntry,
    place: Place,
    places: ExceptionPlaces,
  ): void {
    const { common, offset: start, size, startField } = description;
    const routine = personality && { relocation: personality, place: places.personality(personality) };
    const commonAt = this.common(
      section.bytes.subarray(common.offset, common.offset + common.size),
      common.offset,
      routine,
    );
    const copy = Buffer.from(section.bytes.subarray(start, start + size));
    const offset = this.image.append('.eh_frame', copy, 4);
    writeOperand(copy, 4, offset + 4 - commonAt);
    this.relocate(copy, offset, startField - start, place, 0);
    const tablePlace = table && places.table(table);
    if (table && tablePlace) this.relocate(copy, offset, table.offset - start, tablePlace, 0);
  }

  private relocate(record: Buffer, offset: number, at: number, place: Place, addend: number): void {
    writeOperand(record, at, 0);
    this.image.relocate('.eh_frame', offset + at, relocationType.pc32, place, addend);
  }

  private common(
    bytes: Uint8Array,
    start: number,
    routine: { readonly relocation: ElfRelocation; readonly place: Place | undefined } | undefined,
  ): number {
    const key = `${Buffer.from(bytes).toString('hex')} ${routine?.place?.symbol ?? ''}`;
    let offset = this.commons.get(key);
    if (offset === undefined) {
      // Padding between records would read as the end of the table; records are multiples of four bytes.
      const copy = Buffer.from(bytes);
      offset = this.image.append('.eh_frame', copy, this.commons.size === 0 ? 8 : 4);
      this.commons.set(key, offset);
      if (routine?.place) this.relocate(copy, offset, routine.relocation.offset - start, routine.place, 0);
    }
    return offset;
  }

  /** The zero length that ends the table. */
  finish(): void {
    this.image.append('.eh_frame', new Uint8Array(4), 4);
  }
}
