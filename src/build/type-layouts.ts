// The types of one compiled unit that have a name: how their values lie in memory, and who uses them.
import { numberOf, referred, type DebugEntry, type DebugInfo } from './debug-info.js';

/** A part of a value: a field or a base class; bits from the start of the value. */
export interface Field {
  readonly offset: number;
  readonly size: number;
  /** Equal texts mean equal representation, as far as it does not follow from another type with a name. */
  readonly representation: string;
}

export interface TypeLayout {
  /** As people write it: `struct box`, `enum colour`, `count_t`. */
  readonly name: string;
  readonly kind: 'record' | 'enumeration' | 'other';
  /** Bytes; undefined where the type has none of its own, as a function. */
  readonly size: number | undefined;
  readonly alignment: number | undefined;
  readonly fields: ReadonlyMap<string, Field>;
  readonly enumerators: ReadonlyMap<string, number>;
  readonly representation: string;
}

/** By what a type is used; a value may contain it, a pointer may lead to a value that contains it. */
export interface TypeUse {
  readonly type: string;
  readonly how: 'value' | 'pointer';
  readonly as: 'parameter' | 'local' | 'result' | 'variable' | 'field';
  /** Of the parameter, variable or field. */
  readonly name: string;
  /** The function, or the type of a field; undefined for variables outside of functions. */
  readonly by: string | undefined;
}

export interface UnitTypes {
  readonly layouts: ReadonlyMap<string, TypeLayout>;
  /** Uses by functions name the function as the linker does, without what the compiler appends. */
  readonly uses: readonly TypeUse[];
  /** Functions that are inlined, by the functions into whose code they are. */
  readonly inlined: ReadonlyMap<string, ReadonlySet<string>>;
  /** Parameters and result of the functions that other units can call; equal texts mean that they are passed alike. */
  readonly signatures: ReadonlyMap<string, string>;
}

const recordKinds: ReadonlyMap<string, string> = new Map([
  ['structure_type', 'struct'],
  ['class_type', 'class'],
  ['union_type', 'union'],
]);
const pointers: ReadonlySet<string> = new Set([
  'pointer_type',
  'reference_type',
  'rvalue_reference_type',
  'ptr_to_member_type',
]);
const transparent: ReadonlySet<string> = new Set([
  ...['const_type', 'volatile_type', 'restrict_type', 'atomic_type'],
]);
/** Encodings of integers, characters and booleans are one: DWARF 4, 7.8. */
const integerEncodings: ReadonlySet<number> = new Set([2, 5, 6, 7, 8, 16]);

export function readTypes(info: DebugInfo): UnitTypes {
  return new TypeReader(info).read();
}

class TypeReader {
  private readonly layouts = new Map<string, TypeLayout>();
  private readonly uses = new Map<string, TypeUse>();
  private readonly inlined = new Map<string, Set<string>>();
  private readonly signatures = new Map<string, string>();
  /** Typedefs that give a name to a type without one. */
  private readonly aliases = new Map<DebugEntry, string>();

  constructor(private readonly info: DebugInfo) {}

  read(): UnitTypes {
    const entries = [...walk(this.info.roots)];
    for (const entry of entries) this.noteAlias(entry);
    for (const entry of entries) this.visit(entry);
    const { layouts, uses, inlined, signatures } = this;
    return { layouts, uses: [...uses.values()], inlined, signatures };
  }

  private noteAlias(entry: DebugEntry): void {
    if (entry.tag !== 'typedef') return;
    const target = this.typeOf(entry);
    const isNamed = target === undefined || target.attributes.has('name');
    const isOwn = target && (recordKinds.has(target.tag) || target.tag === 'enumeration_type');
    if (!isNamed && isOwn && !this.aliases.has(target)) this.aliases.set(target, scopedName(entry));
  }

  private visit(entry: DebugEntry): void {
    const name = this.nameOf(entry);
    if (name !== undefined && !entry.attributes.has('declaration') && !this.layouts.has(name)) {
      this.layouts.set(name, this.layoutOf(entry, name));
    }
    switch (entry.tag) {
      case 'member':
      case 'inheritance': {
        const owner = entry.parent && this.nameOf(entry.parent);
        if (owner !== undefined) this.use(entry, 'field', owner);
        return;
      }
      case 'subprogram':
        this.use(entry, 'result', this.functionOf(entry));
        this.noteSignature(entry);
        return;
      case 'formal_parameter':
        if (isInFunction(entry)) this.use(entry, 'parameter', this.functionOf(entry));
        return;
      case 'variable':
        this.useVariable(entry);
        return;
      case 'inlined_subroutine':
        this.noteInlined(entry);
    }
  }

  private noteSignature(entry: DebugEntry): void {
    const [origin, name] = [this.originOf(entry), this.functionOf(entry)];
    const isDefinition = !entry.attributes.has('declaration');
    if (!isDefinition || !origin.attributes.has('external') || name === undefined) return;
    const isParameter = ({ tag }: DebugEntry): boolean =>
      tag === 'formal_parameter' || tag === 'unspecified_parameters';
    const own = entry.children.filter(isParameter);
    const parameters = own.length > 0 ? own : origin.children.filter(isParameter);
    const passed = parameters.map((parameter) =>
      parameter.tag === 'formal_parameter' ? this.passedAs(parameter) : '...',
    );
    this.signatures.set(name, `${this.passedAs(entry)} of (${passed.join(', ')})`);
  }

  private passedAs(entry: DebugEntry): string {
    return this.representation(this.typeOf(entry) ?? this.typeOf(this.originOf(entry)), 0);
  }

  private useVariable(entry: DebugEntry): void {
    const isLocal = isInFunction(entry);
    const isStatic = /DW_OP_(?:addr|GNU_push_tls|form_tls)/.test(entry.attributes.get('location') ?? '');
    const isKept = !isLocal || isStatic || entry.attributes.has('external');
    this.use(entry, isKept ? 'variable' : 'local', isLocal ? this.functionOf(entry) : undefined);
  }

  private noteInlined(entry: DebugEntry): void {
    const [callee, caller] = [this.functionOf(entry), entry.parent && this.functionOf(entry.parent)];
    if (callee === undefined || caller === undefined) return;
    this.inlined.set(callee, (this.inlined.get(callee) ?? new Set()).add(caller));
  }

  /** The linker's name of the function that `entry` is, or is in. */
  private functionOf(entry: DebugEntry): string | undefined {
    let found: DebugEntry | undefined = entry;
    while (found && found.tag !== 'subprogram' && found.tag !== 'inlined_subroutine') found = found.parent;
    const origin = found && this.originOf(found);
    return origin?.attributes.get('linkage_name') ?? origin?.attributes.get('name');
  }

  private originOf(entry: DebugEntry): DebugEntry {
    const origin =
      referred(this.info, entry, 'abstract_origin') ?? referred(this.info, entry, 'specification');
    return origin ? this.originOf(origin) : entry;
  }

  private typeOf(entry: DebugEntry): DebugEntry | undefined {
    return referred(this.info, entry, 'type');
  }

  private use(entry: DebugEntry, as: TypeUse['as'], by: string | undefined): void {
    const origin = this.originOf(entry);
    const type = this.typeOf(entry) ?? this.typeOf(origin);
    const name = origin.attributes.get('name') ?? '';
    for (const [used, how] of this.reached(type)) {
      const use = { type: used, how, as, name, by };
      this.uses.set(JSON.stringify(use), use);
    }
  }

  /** Types with a name in a value of `type`, or behind its pointers; members of types with a name have uses of their own. */
  private reached(type: DebugEntry | undefined): Map<string, TypeUse['how']> {
    const found = new Map<string, TypeUse['how']>();
    const visit = (entry: DebugEntry | undefined, how: TypeUse['how'], depth: number): void => {
      if (!entry || depth > deepest) return;
      const name = this.nameOf(entry);
      if (name !== undefined && found.get(name) !== 'value') found.set(name, how);
      if (entry.tag === 'subroutine_type') return;
      if (name === undefined && recordKinds.has(entry.tag)) {
        for (const member of entry.children) visit(this.typeOf(member), how, depth + 1);
      }
      visit(this.typeOf(entry), pointers.has(entry.tag) ? 'pointer' : how, depth + 1);
    };
    visit(type, 'value', 0);
    return found;
  }

  /** Undefined for what is no type with a name. */
  private nameOf(entry: DebugEntry): string | undefined {
    const kind = recordKinds.get(entry.tag) ?? (entry.tag === 'enumeration_type' ? 'enum' : undefined);
    if (kind !== undefined) {
      return entry.attributes.has('name') ? `${kind} ${scopedName(entry)}` : this.aliases.get(entry);
    }
    if (entry.tag !== 'typedef') return undefined;
    const target = this.typeOf(entry);
    // Another name of something that has one is no type of its own.
    const isOther = target !== undefined && this.nameOf(target) !== undefined;
    return isOther ? undefined : scopedName(entry);
  }

  private layoutOf(entry: DebugEntry, name: string): TypeLayout {
    const isRecord = recordKinds.has(entry.tag);
    const isEnumeration = entry.tag === 'enumeration_type';
    const enumerators = isEnumeration
      ? entry.children.map((child): [string, number] => [
          child.attributes.get('name') ?? '',
          numberOf(child, 'const_value') ?? 0,
        ])
      : [];
    return {
      name,
      kind: isRecord ? 'record' : isEnumeration ? 'enumeration' : 'other',
      size: this.bits(entry) / 8,
      alignment: numberOf(entry, 'alignment'),
      fields: isRecord ? this.fieldsOf(entry, 0, 0) : new Map(),
      enumerators: new Map(enumerators),
      representation: entry.tag === 'typedef' ? this.representation(this.typeOf(entry), 0) : '',
    };
  }

  /** Fields of a record without name count as those of the record around it. */
  private fieldsOf(record: DebugEntry, start: number, depth: number): Map<string, Field> {
    const fields = new Map<string, Field>();
    for (const member of record.children) {
      const isBase = member.tag === 'inheritance';
      const isField = member.tag === 'member' && !member.attributes.has('external');
      if ((!isField && !isBase) || depth > deepest) continue;
      const type = this.typeOf(member);
      const offset = start + this.offsetOf(member);
      const name = isBase ? `base ${this.spelling(type)}` : member.attributes.get('name');
      if (name === undefined && type) {
        for (const [inner, field] of this.fieldsOf(type, offset, depth + 1)) fields.set(inner, field);
      } else {
        const size = numberOf(member, 'bit_size') ?? (type ? this.bits(type) : 0);
        const field = { offset, size, representation: this.representation(type, 0) };
        fields.set(name ?? `${fields.size}`, field);
      }
    }
    return fields;
  }

  /** Bits from the start of the record; bit fields count from the other end of their unit where only `bit_offset` is there. */
  private offsetOf(member: DebugEntry): number {
    const bits = numberOf(member, 'data_bit_offset');
    if (bits !== undefined) return bits;
    const start = 8 * (numberOf(member, 'data_member_location') ?? 0);
    const fromEnd = numberOf(member, 'bit_offset');
    if (fromEnd === undefined) return start;
    const type = this.typeOf(member);
    const unit = 8 * (numberOf(member, 'byte_size') ?? 0) || (type ? this.bits(type) : 0);
    return start + unit - fromEnd - (numberOf(member, 'bit_size') ?? 0);
  }

  private bits(entry: DebugEntry, depth = 0): number {
    const own = numberOf(entry, 'byte_size');
    if (own !== undefined) return own * 8;
    if (pointers.has(entry.tag)) return 64;
    const inner = depth > deepest ? undefined : this.typeOf(entry);
    if (!inner || entry.tag === 'subroutine_type') return 0;
    const count = entry.tag === 'array_type' ? elementsOf(entry) : 1;
    return count * this.bits(inner, depth + 1);
  }

  private representation(type: DebugEntry | undefined, depth: number): string {
    if (!type || depth > deepest) return 'nothing';
    const name = this.nameOf(type);
    if (name !== undefined && type.tag !== 'typedef') return name;
    if (pointers.has(type.tag)) return 'pointer';
    if (type.tag === 'array_type')
      return `${this.representation(this.typeOf(type), depth + 1)}[${elementsOf(type)}]`;
    if (type.tag === 'base_type') {
      const encoding = numberOf(type, 'encoding') ?? 0;
      return `${integerEncodings.has(encoding) ? 'integer' : encoding} ${this.bits(type)}`;
    }
    if (recordKinds.has(type.tag)) return JSON.stringify([...this.fieldsOf(type, 0, depth + 1)]);
    if (type.tag === 'enumeration_type') return `integer ${this.bits(type)}`;
    return transparent.has(type.tag) || type.tag === 'typedef'
      ? this.representation(this.typeOf(type), depth + 1)
      : type.tag;
  }

  private spelling(type: DebugEntry | undefined): string {
    return (type && this.nameOf(type)) ?? type?.attributes.get('name') ?? '';
  }
}

/** Types of types of types: no honest program comes near. */
const deepest = 64;

function* walk(entries: readonly DebugEntry[]): Generator<DebugEntry> {
  for (const entry of entries) {
    yield entry;
    yield* walk(entry.children);
  }
}

function isInFunction(entry: DebugEntry): boolean {
  for (let outer = entry.parent; outer; outer = outer.parent)
    if (outer.tag === 'subprogram' || outer.tag === 'inlined_subroutine') return true;
  return false;
}

const scopes: ReadonlySet<string> = new Set([...recordKinds.keys(), 'namespace', 'subprogram']);

/** With namespaces, classes and functions around it. */
function scopedName(entry: DebugEntry): string {
  const names = [entry.attributes.get('name') ?? ''];
  for (let outer = entry.parent; outer; outer = outer.parent)
    if (scopes.has(outer.tag)) names.unshift(outer.attributes.get('name') ?? '(anonymous)');
  return names.join('::');
}

function elementsOf(array: DebugEntry): number {
  return array.children
    .filter(({ tag }) => tag === 'subrange_type')
    .map((range) => numberOf(range, 'count') ?? (numberOf(range, 'upper_bound') ?? -1) + 1)
    .reduce((product, count) => product * count, 1);
}
