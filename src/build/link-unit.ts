// Puts a unit's changed and new functions into the patch and reduces their relocations to the four kinds a patch may hold.
import {
  relocationName,
  relocationType,
  sectionType,
  symbolVisibility,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';
import {
  baseName,
  digest,
  isReadOnly,
  type CodeObject,
  type ObjectFunction,
  type Reference,
} from './code-object.js';
import { parentName } from './compare.js';
import { ExceptionTables } from './exception-tables.js';
import type { PatchHook } from '../patchfile/index.js';
import type { PatchImage, Place } from './patch-image.js';
import { relaxLoad, useOf, type Use } from './instructions.js';
import type { Refusals } from './result.js';
import type { ShippedObject } from './shipped-object.js';
import { near, type Destination, type SymbolResolver } from './symbol-resolver.js';
import { isThreadLocal, ThreadLocalLinker, type CodeInPatch } from './thread-local.js';
import { checkCalls, newHooks } from './patch-hooks.js';
import { operandIn } from './unit-proof.js';
import { originalDatum, originalOf, type OriginalFunction, type Unit } from './unit.js';
import type { UnwindBuilder } from './unwind.js';

const { abs64, pc32, plt32, pc64, gotPcRel, gotPcRelX, rexGotPcRelX } = relocationType;

const directTypes: ReadonlySet<number> = new Set([pc32, plt32]);
const slotTypes: ReadonlySet<number> = new Set([gotPcRel, gotPcRelX, rexGotPcRelX]);

interface Included extends CodeInPatch {
  readonly place: Place;
  /** The function replaces one of the shipped object, whose address stands for it wherever its address is taken. */
  readonly replaces: boolean;
}

export class UnitLinker {
  private readonly included = new Map<string, Included>();
  private readonly copies = new Map<number, Place>();
  private readonly threadLocal: ThreadLocalLinker;
  private readonly exceptions: ExceptionTables;

  constructor(
    private readonly unit: Unit,
    private readonly shipped: ShippedObject,
    private readonly image: PatchImage,
    private readonly resolver: SymbolResolver,
    private readonly refusals: Refusals,
  ) {
    this.threadLocal = new ThreadLocalLinker(unit, shipped, image, resolver, refusals);
    this.exceptions = new ExceptionTables(
      unit.patched,
      image,
      (reference, user, addend) => this.destination(reference, 'value', user, addend),
      refusals,
    );
  }

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
      this.linkFunction(included);
      unwind.add(this.object, included.part, included.place, this.exceptions.for(included.part));
    }
  }

  /** Hooks that the unit marks, by the names of their functions in the patch. */
  hooks(nameOf: (part: ObjectFunction) => string): PatchHook[] {
    return newHooks(this.unit.original, this.object).flatMap(({ kind, function: target, undo }) => {
      for (const part of [target, ...(undo ? [undo] : [])]) {
        checkCalls(this.object, part, this.refusals);
        if (this.included.get(part.name)?.replaces !== false) {
          this.refusals.add(
            'HOOK',
            `${part.name} is no new function: a hook is one that only the patch has`,
            part.name,
          );
          return [];
        }
      }
      return [{ kind, function: nameOf(target), ...(undo && { undo: nameOf(undo) }) }];
    });
  }

  placeOf(part: ObjectFunction): Place | undefined {
    return this.included.get(part.name)?.place;
  }

  private linkFunction(included: Included): void {
    const gone = new Set<number>();
    for (const relocation of included.part.relocations) {
      if (gone.has(relocation.offset)) continue;
      if (!isThreadLocal(relocation)) {
        this.linkRelocation(included, relocation);
        continue;
      }
      const call = this.threadLocal.link(included, relocation);
      if (call !== undefined) gone.add(call);
    }
  }

  private linkRelocation({ part, offset, bytes }: Included, relocation: ElfRelocation): void {
    const { reference, addend } = this.object.resolve(relocation);
    const at = relocation.offset;
    const use = useOf(bytes, at);
    const isThroughSlot = slotTypes.has(relocation.type);
    if (!isThroughSlot && !directTypes.has(relocation.type)) {
      const what = `${relocationName(relocation.type)} in ${part.name}`;
      this.refusals.add('UNSUPPORTED_RELOCATION', `relocation ${what} is not supported`, part.name);
      return;
    }
    const destination = this.destination(reference, use, part, addend);
    if (!destination) return;
    if (!isThroughSlot) {
      this.image.relocate('.text', offset + at, pc32, this.direct(destination, use, part), addend);
      return;
    }
    if (destination.kind === 'near') {
      const moved = relaxLoad(bytes, at);
      if (moved !== undefined) {
        this.image.relocate('.text', offset + moved, pc32, destination.place, addend);
        return;
      }
    }
    const slot = destination.kind === 'slot' ? destination.slot : this.image.slot(destination.place);
    this.image.relocate('.text', offset + at, pc32, slot, addend);
  }

  /** Where a call or an address calculation goes; calls out of the object's reach take a stub. */
  private direct(destination: Destination, use: Use, part: ObjectFunction): Place {
    if (destination.kind === 'near') return destination.place;
    if (destination.kind === 'foreign' && use === 'branch') return this.image.stub(destination.place);
    this.refusals.add(
      'UNSUPPORTED_RELOCATION',
      `${part.name} uses a foreign datum without its slot`,
      part.name,
    );
    return destination.kind === 'slot' ? destination.slot : destination.place;
  }

  private destination(
    reference: Reference,
    use: Use,
    user: ObjectFunction,
    addend: number,
  ): Destination | undefined {
    switch (reference.kind) {
      case 'constant':
        return near(this.image.constant(reference.bytes, reference.alignment));
      case 'external':
        return this.resolver.external(this.unit, reference.name, use);
      case 'code':
        return this.code(reference, use, user, addend);
      case 'data':
        return this.data(reference, use, user);
    }
  }

  private code(
    { section, offset, symbol }: Pick<Reference & { kind: 'code' }, 'section' | 'offset' | 'symbol'>,
    use: Use,
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
    if (symbol.type === 'ifunc') return this.indirect(target, symbol, use, user);
    const included = this.included.get(target.name);
    const isInside = offset !== target.offset || addend !== -4;
    const isPart = user === undefined || parentName(target) === parentName(user);
    if (included && isPart && (isInside || user === undefined)) return near(included.place);
    if (isInterposable(symbol)) {
      const chosen = this.resolver.interposable(symbol.name, use);
      if (chosen) return chosen;
    }
    if (included && use !== 'value') return near(included.place);
    if (included && !included.replaces) {
      // R7: a pointer into the patch could outlive it.
      const message = `the address of the new function ${target.name} is taken; it would outlive an unload`;
      this.refusals.add('UNRESOLVED_SYMBOL', message, target.name);
      return undefined;
    }
    const original = this.original(target, user);
    return original && near(this.image.objectSymbol(target.name, original.address, original.size, true));
  }

  /** An indirect function of the unit, whose resolver is `target`; the loader asked it, and we never do. */
  private indirect(
    target: ObjectFunction,
    { name }: ElfSymbol,
    use: Use,
    user: ObjectFunction | undefined,
  ): Destination | undefined {
    const original = this.original(target, user);
    const chosen =
      this.resolver.interposable(name, use) ??
      (original && this.resolver.indirect(name, original.address, use));
    if (!chosen) {
      const message = `the object has no slot for the indirect function ${name}, so what the process chose is not known`;
      this.refusals.add('UNRESOLVED_SYMBOL', message, user?.name);
    }
    return chosen;
  }

  private original(target: ObjectFunction, user: ObjectFunction | undefined): OriginalFunction | undefined {
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
      original.address,
    );
    return original;
  }

  private data(
    reference: Reference & { kind: 'data' },
    use: Use,
    user: ObjectFunction,
  ): Destination | undefined {
    const { section } = reference;
    const symbol = this.object.symbols.find(
      (candidate) =>
        candidate.sectionIndex === section.index &&
        candidate.type === 'object' &&
        candidate.value === reference.offset,
    );
    if (symbol && isInterposable(symbol)) {
      const chosen = this.resolver.interposable(symbol.name, use);
      if (chosen) return chosen;
    }
    const name = symbol ? baseName(symbol.name) : undefined;
    const original = name === undefined ? undefined : originalDatum(this.unit, name, user);
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
    const exported = symbol && this.resolver.defined(symbol.name, use);
    if (exported) return exported;
    if (stockHasIt) {
      const message = `the address of ${name ?? section.name} cannot be read from the shipped code`;
      this.refusals.add('UNRESOLVED_SYMBOL', message, user.name);
      return undefined;
    }
    if (name !== undefined && describesClass.test(name)) {
      // R7: objects and exceptions of the class would lead into the patch and outlive it.
      const message = `${name} describes a class that the object does not have; its objects would outlive an unload`;
      this.refusals.add('UNRESOLVED_SYMBOL', message, user.name);
      return undefined;
    }
    if (section.name.startsWith('.data.rel.ro')) return near(this.copy(section, '.rodata', user));
    return near(this.copy(section, section.type === sectionType.nobits ? '.bss' : '.data', user));
  }

  private objectDatum({ name, address, size }: { name: string; address: number; size: number }): Place {
    const operand = operandIn(this.unit, this.shipped, address);
    const detail = `datum of ${this.unit.file} at 0x${address.toString(16)}`;
    this.resolver.prove(name, 'operand', detail, address, operand);
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
          ? this.code(reference, isTable ? 'branch' : 'value', isTable ? undefined : user, addend)
          : this.destination(reference, 'value', user, addend);
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

/** Virtual tables and type information: Itanium C++ ABI, 5.1.4.1. */
const describesClass = /^_ZT[VTCI]/;

/** The object itself leaves it to the loader whose definition counts. */
function isInterposable({ binding, visibility }: ElfSymbol): boolean {
  return binding !== 'local' && visibility === symbolVisibility.default;
}

function sameBytes(bytes: Uint8Array, section: ElfSection): boolean {
  return bytes.length === section.size && Buffer.compare(bytes, section.bytes) === 0;
}
