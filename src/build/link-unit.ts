// Puts a unit's changed and new functions into the patch and reduces their relocations to the four kinds a patch may hold.
import {
  relocationType,
  sectionFlag,
  sectionType,
  type ElfRelocation,
  type ElfSection,
} from '../elf/index.js';
import { relocationName } from '../elf/index.js';
import {
  baseName,
  digest,
  isReadOnly,
  type CodeObject,
  type ObjectFunction,
  type Reference,
} from './code-object.js';
import type { PatchImage, Place } from './patch-image.js';
import { branchBefore, relaxLoad } from './instructions.js';
import type { Refusals } from './result.js';
import type { Destination, SymbolResolver } from './symbol-resolver.js';
import { originalDatum, originalOf, type Unit } from './unit.js';
import type { UnwindBuilder } from './unwind.js';

const { abs64, pc32, plt32, pc64, gotPcRel, gotPcRelX, rexGotPcRelX, gotTpOff } = relocationType;

interface Included {
  readonly part: ObjectFunction;
  readonly place: Place;
  readonly offset: number;
  readonly bytes: Buffer;
  /** The function replaces one of the shipped object, whose address stands for it wherever its address is taken. */
  readonly replaces: boolean;
}

export class UnitLinker {
  private readonly included = new Map<string, Included>();
  private readonly copies = new Map<number, Place>();

  constructor(
    private readonly unit: Unit,
    private readonly image: PatchImage,
    private readonly resolver: SymbolResolver,
    private readonly refusals: Refusals,
  ) {}

  private get object(): CodeObject {
    return this.unit.patched;
  }

  /** First pass: gives every included function its place; `nameOf` makes names unique in the patch. */
  place(nameOf: (part: ObjectFunction) => string): void {
    const { changed, added } = this.unit.comparison;
    const parts = [
      ...changed.map(({ patched }) => ({ part: patched, replaces: true })),
      ...added.map((part) => ({ part, replaces: false })),
    ].sort((left, right) => left.part.symbol.index - right.part.symbol.index);
    for (const { part, replaces } of parts) {
      const bytes = Buffer.from(part.bytes);
      const offset = this.image.append('.text', bytes, 16);
      const place = this.image.patchSymbol(nameOf(part), '.text', offset, part.size, true);
      this.included.set(part.name, { part, place, offset, bytes, replaces });
    }
  }

  /** Second pass, when all units have their places: relocations and unwind entries. */
  link(unwind: UnwindBuilder): void {
    for (const included of this.included.values()) {
      for (const relocation of included.part.relocations) this.linkRelocation(included, relocation);
      unwind.add(this.object, included.part, included.place);
    }
  }

  placeOf(part: ObjectFunction): Place | undefined {
    return this.included.get(part.name)?.place;
  }

  private linkRelocation({ part, offset, bytes }: Included, relocation: ElfRelocation): void {
    const { reference, addend } = this.object.resolve(relocation);
    const at = relocation.offset;
    const isBranch = branchBefore(bytes, at);
    const destination = this.destination(reference, isBranch, part, addend);
    if (!destination) return;
    switch (relocation.type) {
      case pc32:
      case plt32:
        this.image.relocate('.text', offset + at, pc32, this.direct(destination, isBranch, part), addend);
        return;
      case gotPcRel:
      case gotPcRelX:
      case rexGotPcRelX: {
        if (destination.kind === 'near') {
          const moved = relaxLoad(bytes, at);
          if (moved !== undefined) {
            this.image.relocate('.text', offset + moved, pc32, destination.place, addend);
            return;
          }
        }
        const slot = destination.kind === 'slot' ? destination.slot : this.image.slot(destination.place);
        this.image.relocate('.text', offset + at, pc32, slot, addend);
        return;
      }
      case gotTpOff:
        if (destination.kind === 'slot') {
          this.image.relocate('.text', offset + at, pc32, destination.slot, addend);
          return;
        }
    }
    const what = `${relocationName(relocation.type)} in ${part.name}`;
    this.refusals.add('UNSUPPORTED_RELOCATION', `relocation ${what} is not supported`, part.name);
  }

  /** Where a call or an address calculation goes; calls out of the object's reach take a stub. */
  private direct(destination: Destination, isBranch: boolean, part: ObjectFunction): Place {
    if (destination.kind === 'near') return destination.place;
    if (!isBranch) {
      this.refusals.add(
        'UNSUPPORTED_RELOCATION',
        `${part.name} uses a foreign datum without its slot`,
        part.name,
      );
    }
    return destination.kind === 'slot' ? destination.slot : this.image.stub(destination.place);
  }

  private destination(
    reference: Reference,
    isBranch: boolean,
    user: ObjectFunction,
    addend: number,
  ): Destination | undefined {
    switch (reference.kind) {
      case 'constant':
        return near(this.image.constant(reference.bytes, reference.alignment));
      case 'external':
        return this.resolver.external(this.unit, reference.name, isBranch, user.name);
      case 'code':
        return this.code(reference.section, reference.offset, isBranch, user, addend);
      case 'data':
        return this.data(reference, user);
    }
  }

  private code(
    section: ElfSection,
    offset: number,
    isBranch: boolean,
    user: ObjectFunction | undefined,
    addend: number,
  ): Destination | undefined {
    const target = this.object.functionAt(section, offset);
    if (!target) {
      this.refusals.add(
        'UNSUPPORTED_RELOCATION',
        `${user?.name ?? 'data'} refers to code outside functions`,
        user?.name,
      );
      return undefined;
    }
    const included = this.included.get(target.name);
    const isOwn = user === undefined || target.name === user.name || target.base === `${user.base}.cold`;
    if (included && (isBranch || isOwn)) return near(included.place);
    if (included && !included.replaces) {
      // R7: a pointer into the patch could outlive it.
      const message = `the address of the new function ${target.name} is taken; it would outlive an unload`;
      this.refusals.add('UNRESOLVED_SYMBOL', message, target.name);
      return undefined;
    }
    const stub = isBranch && target.symbol.binding !== 'local' ? this.resolver.stub(target.name) : undefined;
    if (stub && addend === -4) return near(stub);
    const original = originalOf(this.unit, target);
    if (original === undefined || original === 'ambiguous') {
      const reason = original ? 'cannot be told from its copies' : 'is not in the shipped object';
      this.refusals.add('UNRESOLVED_SYMBOL', `${target.name} ${reason}`, user?.name);
      return undefined;
    }
    this.resolver.prove(
      target.name,
      'object-bytes',
      `part of ${this.unit.file} at 0x${original.address.toString(16)}`,
    );
    return near(this.image.objectSymbol(target.name, original.address, original.size, true));
  }

  private data(reference: Reference & { kind: 'data' }, user: ObjectFunction): Destination | undefined {
    const { section } = reference;
    const symbol = this.object.symbols.find(
      (candidate) =>
        candidate.sectionIndex === section.index &&
        candidate.type === 'object' &&
        candidate.value === reference.offset,
    );
    if ((section.flags & sectionFlag.tls) !== 0) {
      this.refusals.add(
        'UNSUPPORTED_RELOCATION',
        `${user.name} uses thread-local data of its unit`,
        user.name,
      );
      return undefined;
    }
    const name = symbol ? baseName(symbol.name) : undefined;
    const original = name === undefined ? undefined : originalDatum(this.unit, name, baseName);
    if (isReadOnly(section)) {
      const isSame =
        typeof original === 'object' &&
        this.object.relocations(section).length === 0 &&
        sameBytes(original.bytes, section);
      return near(isSame ? this.objectDatum(original) : this.copy(section, '.rodata', user));
    }
    if (original === 'ambiguous') {
      this.refusals.add(
        'AMBIGUOUS',
        `${user.name} uses ${name ?? section.name}, and the unit has several`,
        user.name,
      );
      return undefined;
    }
    if (original) return near(this.objectDatum(original));
    const stockHasIt = this.unit.placement.unit.symbols.some(
      (candidate) =>
        candidate.type === 'object' && candidate.sectionIndex !== 0 && baseName(candidate.name) === name,
    );
    const exported = symbol && this.resolver.defined(symbol.name);
    if (exported) return near(exported);
    if (stockHasIt) {
      const message = `the address of ${name ?? section.name} cannot be read from the shipped code`;
      this.refusals.add('UNRESOLVED_SYMBOL', message, user.name);
      return undefined;
    }
    if (section.name.startsWith('.data.rel.ro')) return near(this.copy(section, '.rodata', user));
    return near(this.copy(section, section.type === sectionType.nobits ? '.bss' : '.data', user));
  }

  private objectDatum({ name, address, size }: { name: string; address: number; size: number }): Place {
    this.resolver.prove(name, 'operand', `datum of ${this.unit.file} at 0x${address.toString(16)}`);
    return this.image.objectSymbol(name, address, size, false);
  }

  /** A copy of a whole data section in the patch: jump tables, names of functions, constants, new variables. */
  private copy(section: ElfSection, into: '.rodata' | '.data' | '.bss', user: ObjectFunction): Place {
    const known = this.copies.get(section.index);
    if (known) return known;
    const bytes = into === '.bss' ? new Uint8Array(section.size) : Buffer.from(section.bytes);
    const relocations = this.object.relocations(section);
    if (into === '.rodata' && relocations.length === 0) {
      const place = this.image.constant(bytes, section.alignment);
      this.copies.set(section.index, place);
      return place;
    }
    const offset = this.image.append(into, bytes, section.alignment);
    const name = `${baseName(section.name).replace(/^\./, '.L')}.${digest(Buffer.from(`${this.unit.file} ${section.index}`)).slice(0, 8)}`;
    const place = this.image.patchSymbol(name, into, offset, section.size, false);
    this.copies.set(section.index, place);
    for (const relocation of relocations) {
      const { reference, addend } = this.object.resolve(relocation);
      const isTable = relocation.type === pc32 && reference.kind === 'code';
      const destination =
        reference.kind === 'code'
          ? this.code(reference.section, reference.offset, isTable, isTable ? undefined : user, addend)
          : this.destination(reference, false, user, addend);
      if (!destination) continue;
      if (destination.kind !== 'near' || ![abs64, pc32, pc64].some((type) => type === relocation.type)) {
        this.refusals.add('UNSUPPORTED_RELOCATION', `${section.name} refers to a foreign symbol`, user.name);
        continue;
      }
      const type = relocation.type === abs64 ? abs64 : relocation.type === pc64 ? pc64 : pc32;
      this.image.relocate(into, offset + relocation.offset, type, destination.place, addend);
    }
    return place;
  }
}

const near = (place: Place): Destination => ({ kind: 'near', place });

function sameBytes(bytes: Uint8Array, section: ElfSection): boolean {
  return bytes.length === section.size && Buffer.compare(bytes, section.bytes) === 0;
}
