// Compares two compiles of one unit, function by function, relocation by relocation.
import { sectionFlag, sectionType } from '../elf/index.js';
import {
  baseName,
  digest,
  isDataSection,
  isReadOnly,
  type CodeObject,
  type ObjectFunction,
} from './code-object.js';
import { exceptionIdentity } from './frame-entries.js';
import { convertedNames, isMark } from './patch-hooks.js';
import type { Refusals, RefusalSink } from './result.js';

export interface Comparison {
  /** Functions that differ, as they are in the original and in the patched object. */
  readonly changed: readonly { readonly original: ObjectFunction; readonly patched: ObjectFunction }[];
  /** Functions only the patched object has. */
  readonly added: readonly ObjectFunction[];
  /** Functions only the original has: nothing new refers to them. */
  readonly removed: readonly ObjectFunction[];
}

/** GCC's name for the unlikely part of a function, which it puts elsewhere. */
export const coldSuffix = '.cold';

/** The function whose unlikely part `part` is; its own base name for a whole function. */
export const parentName = (part: ObjectFunction): string =>
  part.base.endsWith(coldSuffix) ? part.base.slice(0, -coldSuffix.length) : part.base;

function fingerprint(object: CodeObject, part: ObjectFunction): string {
  const bytes = Uint8Array.from(part.bytes);
  for (const { offset } of part.relocations) bytes.fill(0, offset, offset + 4);
  const references = part.relocations.map(
    (relocation) => `${relocation.offset} ${object.identityIn(part, relocation)}`,
  );
  return `${digest(bytes)}\n${references.join('\n')}\n${exceptionIdentity(object, part)}\n${object.attachments(part)}`;
}

function byBaseName(object: CodeObject): Map<string, ObjectFunction[]> {
  const groups = new Map<string, ObjectFunction[]>();
  for (const part of object.functions) groups.set(part.base, [...(groups.get(part.base) ?? []), part]);
  return groups;
}

/** Both objects must be compiled with a section for each function and datum. Unsafe data changes go to `refusals`. */
export function compareObjects(original: CodeObject, patched: CodeObject, refusals: Refusals): Comparison {
  compareData(original, patched, refusals);
  const comparison = compareFunctions(original, patched, refusals);
  const changes = [...comparison.changed.map((pair) => pair.patched), ...comparison.added];
  compareRunAtLoad(original, patched, changes, refusals);
  return comparison;
}

/** The code alone. */
export function compareFunctions(
  original: CodeObject,
  patched: CodeObject,
  refusals: RefusalSink<'AMBIGUOUS'>,
): Comparison {
  const [before, after] = [byBaseName(original), byBaseName(patched)];
  const differing = new Set<string>();
  for (const [base, parts] of after) {
    const old = before.get(base) ?? [];
    const [left, right] = [
      old.map((part) => fingerprint(original, part)),
      parts.map((part) => fingerprint(patched, part)),
    ];
    if (left.length !== right.length || left.some((print, index) => print !== right[index]))
      differing.add(base);
  }
  for (const base of before.keys()) if (!after.has(base)) differing.add(base);
  // A function and its unlikely part change together: each jumps into the other.
  const families = new Set([...differing].map((base) => base.replace(/\.cold$/, '')));

  const changed: { original: ObjectFunction; patched: ObjectFunction }[] = [];
  const [added, removed]: [ObjectFunction[], ObjectFunction[]] = [[], []];
  for (const family of families) {
    for (const base of [family, `${family}${coldSuffix}`]) {
      const [old, fresh] = [before.get(base) ?? [], after.get(base) ?? []];
      if (old.length > 1 || fresh.length > 1) {
        if (old.length !== fresh.length) {
          refusals.add('AMBIGUOUS', `the number of compiler-made copies of ${base} changed`, base);
        }
      }
      const pairs = Math.min(old.length, fresh.length);
      old.slice(0, pairs).forEach((part, index) => {
        const partner = fresh[index];
        if (partner) changed.push({ original: part, patched: partner });
      });
      removed.push(...old.slice(pairs));
      added.push(...fresh.slice(pairs));
    }
  }
  return { changed, added, removed };
}

/** Data that both have must be equal, unless it is constant, private and without relocations: then it is copied. */
function compareData(original: CodeObject, patched: CodeObject, refusals: Refusals): void {
  const before = new Map<string, Set<string>>();
  const sizes = new Map<string, number>();
  const converted = convertedNames(original, patched);
  for (const section of original.elf.sections.filter(isDataSection)) {
    sizes.set(original.sectionIdentity(section), section.size);
    const identity = original.sectionIdentity(section);
    before.set(identity, (before.get(identity) ?? new Set()).add(original.contentIdentity(section)));
  }
  for (const section of patched.elf.sections.filter(isDataSection)) {
    const old = before.get(patched.sectionIdentity(section));
    if (!old || old.has(patched.contentIdentity(section)) || isMark(section)) continue;
    const isPublic = patched.symbols.some(
      (symbol) => symbol.sectionIndex === section.index && symbol.binding !== 'local',
    );
    const isCompilerMade = !patched.symbols.some(
      (symbol) => symbol.sectionIndex === section.index && symbol.type === 'object',
    );
    const hasRelocations = patched.relocations(section).length > 0;
    const isThreadLocal = (section.flags & sectionFlag.tls) !== 0;
    if (isReadOnly(section) && !isPublic && (isCompilerMade || !hasRelocations)) continue;
    const name = section.name.replace(
      /^\.(?:data|bss|rodata|tdata|tbss)(?:\.rel)?(?:\.ro)?(?:\.local)?\./,
      '',
    );
    const isSameSize = sizes.get(patched.sectionIdentity(section)) === section.size;
    // An update function writes what the new code wants there, into the place that is there.
    if (!isReadOnly(section) && !isThreadLocal && isSameSize && converted.has(baseName(name))) continue;
    const what = isThreadLocal ? 'thread-local data' : 'initial contents or size of the data';
    refusals.add('CHANGED_DATA', `${what} of ${name} changed; running processes hold it already`);
  }
}

/**
 * What the loader calls when it loads an object, it has called already in running processes: constructors, and the
 * resolvers of indirect functions. Destructors that are new would never be called.
 */
function compareRunAtLoad(
  original: CodeObject,
  patched: CodeObject,
  changes: readonly ObjectFunction[],
  refusals: Refusals,
): void {
  const before = calledAtLoad(original);
  for (const [name, kind] of calledAtLoad(patched)) {
    const isNew = !before.has(name);
    if (!isNew && !changes.some((part) => parentName(part) === name)) continue;
    if (!isNew && kind === 'destructor') continue;
    const when = isNew
      ? 'would not be called in running processes'
      : 'has done its work in running processes';
    refusals.add('RUN_AT_LOAD', `${name} is a ${kind}; it ${when}`, name);
  }
  for (const { base } of changes.filter((part) => constructsObjects.test(part.base))) {
    const message = `${base} constructs static objects; it has done its work in running processes`;
    refusals.add('RUN_AT_LOAD', message, base);
  }
}

/** Functions of GCC and Clang that construct the static objects of a unit of C++; constructors call them. */
const constructsObjects = /^(?:_Z\d+__static_initialization_and_destruction_0|__cxx_global_var_init)/;

const loadTables = new Map<number, string>([
  [sectionType.initArray, 'constructor'],
  [sectionType.preinitArray, 'constructor'],
  [sectionType.finiArray, 'destructor'],
]);

/** Base names of such functions. */
function calledAtLoad(object: CodeObject): Map<string, string> {
  const found = new Map<string, string>();
  for (const section of object.elf.sections) {
    const kind = loadTables.get(section.type);
    if (kind === undefined) continue;
    for (const relocation of object.relocations(section)) {
      const { reference, addend } = object.resolve(relocation);
      if (reference.kind !== 'code') continue;
      const called = object.functionAt(reference.section, reference.offset + addend);
      if (called) found.set(called.base, kind);
    }
  }
  for (const { type, sectionIndex, value } of object.symbols) {
    const section = type === 'ifunc' ? object.elf.sections[sectionIndex] : undefined;
    const resolver = section && object.functionAt(section, value);
    if (resolver) found.set(resolver.base, 'resolver of an indirect function');
  }
  return found;
}
