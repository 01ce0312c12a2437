// Unwind entries of the included functions, so that debuggers and exceptions pass through patched code.
import { findSection, parseEhFrame, relocationType, type FrameDescription } from '../elf/index.js';
import type { CodeObject, ObjectFunction } from './code-object.js';
import type { PatchImage, Place } from './patch-image.js';
import type { Refusals } from './result.js';

/** DW_EH_PE_pcrel | DW_EH_PE_sdata4: the encoding of GCC for position-independent code. */
const pcRelative4 = 0x1b;

/** Builds one .eh_frame of all units; call `finish` last. */
export class UnwindBuilder {
  private readonly commons = new Map<string, number>();

  constructor(
    private readonly image: PatchImage,
    private readonly refusals: Refusals,
  ) {}

  /** Adds the entry of `part`, which now lies at `place`. A function without an entry is refused. */
  add(object: CodeObject, part: ObjectFunction, place: Place): void {
    const section = findSection(object.elf, '.eh_frame');
    const relocations = section ? object.relocations(section) : [];
    const entry =
      section &&
      parseEhFrame(section.bytes, 0).find(({ startField }) => {
        const relocation = relocations.find(({ offset }) => offset === startField);
        if (!relocation) return false;
        const symbol = object.symbols[relocation.symbolIndex];
        return (
          symbol?.sectionIndex === part.section.index && symbol.value + relocation.addend === part.offset
        );
      });
    if (!section || !entry) {
      this.refusals.add('UNWIND_TABLE', `${part.name} has no unwind entry`, part.name);
      return;
    }
    const usesMore = relocations.some(
      ({ offset }) => offset > entry.startField && offset < entry.offset + entry.size,
    );
    const usesPersonality = relocations.some(
      ({ offset }) => offset >= entry.common.offset && offset < entry.common.offset + entry.common.size,
    );
    if (usesMore || usesPersonality || entry.common.pointerEncoding !== pcRelative4) {
      this.refusals.add(
        'UNWIND_TABLE',
        `${part.name} has clean-up code for exceptions, which is not supported`,
        part.name,
      );
      return;
    }
    this.append(section.bytes, entry, place);
  }

  private append(bytes: Uint8Array, entry: FrameDescription, place: Place): void {
    const common = this.common(bytes.subarray(entry.common.offset, entry.common.offset + entry.common.size));
    const copy = Buffer.from(bytes.subarray(entry.offset, entry.offset + entry.size));
    const offset = this.image.append('.eh_frame', copy, 4);
    copy.writeInt32LE(offset + 4 - common, 4);
    copy.writeInt32LE(0, entry.startField - entry.offset);
    this.image.relocate('.eh_frame', offset + entry.startField - entry.offset, relocationType.pc32, place, 0);
  }

  private common(bytes: Uint8Array): number {
    const key = Buffer.from(bytes).toString('hex');
    let offset = this.commons.get(key);
    if (offset === undefined) {
      // Padding between records would read as the end of the table; records are multiples of four bytes.
      offset = this.image.append('.eh_frame', bytes, this.commons.size === 0 ? 8 : 4);
      this.commons.set(key, offset);
    }
    return offset;
  }

  /** The zero length that ends the table. */
  finish(): void {
    this.image.append('.eh_frame', new Uint8Array(4), 4);
  }
}
