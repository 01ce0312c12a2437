// Types that two compiles of a unit lay out differently, and where values of the old layout may live on.
import type { Field, TypeLayout, TypeUse, UnitTypes } from './type-layouts.js';

export interface TypeChange {
  readonly name: string;
  /** In words: sizes and fields. */
  readonly what: string;
  /** Fields and enumerators that were added, removed or got another representation. */
  readonly members: ReadonlySet<string>;
  readonly isResized: boolean;
}

/** All types with a name that both have and that differ in size, alignment, fields or values. */
export function typeChanges(before: UnitTypes, after: UnitTypes): TypeChange[] {
  return [...before.layouts.values()].flatMap((old) => {
    const fresh = after.layouts.get(old.name);
    const change = fresh && compareLayouts(old, fresh);
    return change ? [change] : [];
  });
}

function compareLayouts(old: TypeLayout, fresh: TypeLayout): TypeChange | undefined {
  const what: string[] = [];
  const members = new Set<string>();
  if (old.size !== fresh.size) what.push(`${old.size ?? 0} bytes become ${fresh.size ?? 0}`);
  if (old.alignment !== fresh.alignment) {
    what.push(
      `alignment ${old.alignment ?? 'by its fields'} becomes ${fresh.alignment ?? 'that of its fields'}`,
    );
  }
  for (const [name, text, isMember] of [...fieldChanges(old, fresh), ...enumeratorChanges(old, fresh)]) {
    what.push(text);
    if (isMember) members.add(name);
  }
  if (old.kind !== fresh.kind || old.representation !== fresh.representation) what.push('it is another type');
  const isResized = old.size !== fresh.size;
  return what.length === 0
    ? undefined
    : { name: old.name, what: shortened(what).join(', '), members, isResized };
}

type MemberChange = readonly [name: string, text: string, isMember: boolean];

function fieldChanges(old: TypeLayout, fresh: TypeLayout): MemberChange[] {
  const changes: MemberChange[] = [];
  for (const [name, field] of old.fields) {
    const now = fresh.fields.get(name);
    if (!now) changes.push([name, `field ${name} is gone`, true]);
    else if (now.size !== field.size)
      changes.push([name, `field ${name} has ${inBytes(now)} instead of ${inBytes(field)}`, true]);
    else if (now.representation !== field.representation)
      changes.push([name, `field ${name} has another type`, true]);
    else if (now.offset !== field.offset)
      changes.push([name, `field ${name} is at ${place(now)} instead of ${place(field)}`, false]);
  }
  for (const name of fresh.fields.keys())
    if (!old.fields.has(name)) changes.push([name, `field ${name} is new`, true]);
  return changes;
}

/** New enumerators that leave the values of all others alone are none of these. */
function enumeratorChanges(old: TypeLayout, fresh: TypeLayout): MemberChange[] {
  return [...old.enumerators].flatMap(([name, value]): MemberChange[] => {
    const now = fresh.enumerators.get(name);
    if (now === value) return [];
    return [[name, now === undefined ? `${name} is gone` : `${name} is ${now} instead of ${value}`, true]];
  });
}

const inBytes = ({ size }: Field): string => (size % 8 === 0 ? `${size / 8} bytes` : `${size} bits`);
const place = ({ offset }: Field): string => (offset % 8 === 0 ? `byte ${offset / 8}` : `bit ${offset}`);
const mostNamed = 6;

/** The first of many, and how many more there are. */
export function shortened(names: readonly string[]): string[] {
  const rest = names.length - mostNamed;
  return rest > 1 ? [...names.slice(0, mostNamed), `${rest} more`] : [...names];
}

/** A unit before and after, with the names of its functions as the linker has them. */
export interface ComparedUnit {
  readonly file: string;
  readonly before: UnitTypes;
  readonly after: UnitTypes;
  /** Functions with code of their own in the original. */
  readonly functions: ReadonlySet<string>;
  /** Functions that are replaced, new or gone. */
  readonly replaced: ReadonlySet<string>;
  /** Functions by the variables that their code names. */
  readonly usersOfVariables: ReadonlyMap<string, ReadonlySet<string>>;
  /** Types that an update function of the patch brings into the new layout. */
  readonly converted: ReadonlySet<string>;
}

/** Functions that other units can call, and that take or give something else than before. */
export function changedSignatures({ before, after }: ComparedUnit): Set<string> {
  const names = [...before.signatures.keys()].filter((name) => {
    const fresh = after.signatures.get(name);
    return fresh !== undefined && fresh !== before.signatures.get(name);
  });
  return new Set(names);
}

export interface TypeProblem {
  readonly type: string;
  readonly message: string;
}

/**
 * Types of which values in the old layout may live in a process when the new code comes, in words. A type is harmless
 * only where values of it can be nowhere but on the stacks of functions that are replaced, in which no thread is at
 * that moment: it must occur as a value there, no unchanged function may have to do with it, and a pointer to it may
 * be nothing but a parameter.
 */
export function typeProblems(units: readonly ComparedUnit[]): TypeProblem[] {
  const converted = new Set(units.flatMap((unit) => [...unit.converted]));
  const changed = new Map<string, TypeChange>();
  const changesOf = new Map(units.map((unit) => [unit, typeChanges(unit.before, unit.after)]));
  for (const change of [...changesOf.values()].flat()) changed.set(change.name, change);
  return [...changed.values()].flatMap((change) => {
    // Another unit may have another type of the same name.
    const concerned = units.filter(
      (unit) =>
        !unit.before.layouts.has(change.name) ||
        changesOf.get(unit)?.some(({ name }) => name === change.name),
    );
    const reason = !converted.has(change.name)
      ? whyUnsafe(change, concerned)
      : change.isResized
        ? 'and cannot be converted: an update function finds values of the old size in their places'
        : undefined;
    return reason === undefined
      ? []
      : [{ type: change.name, message: `${change.name} changes (${change.what}) ${reason}` }];
  });
}

function whyUnsafe(change: TypeChange, units: readonly ComparedUnit[]): string | undefined {
  const [users, places] = [new Set<string>(), new Set<string>()];
  let isValue = false;
  let isUsed = false;
  for (const unit of units) {
    for (const { how, as, name, by } of usesOf(change.name, unit)) {
      isUsed = true;
      if (as === 'variable') {
        places.add(`variable ${by === undefined ? name : `${name} of ${by}`}`);
        for (const user of unit.usersOfVariables.get(name) ?? [])
          if (!unit.replaced.has(user)) users.add(user);
      }
      if (as === 'field' && how === 'pointer') places.add(`${by ?? ''} points to it (${name})`);
      if (by === undefined || as === 'field' || as === 'variable') continue;
      if (how === 'value') isValue = true;
      else if (as !== 'parameter')
        places.add(as === 'local' ? `pointer ${name} of ${by}` : `result of ${by}`);
      for (const owner of ownersOf(by, unit)) if (!unit.replaced.has(owner)) users.add(owner);
    }
  }
  const reasons = [
    ...(users.size > 0 ? [`unchanged code uses it: ${shortened([...users]).join(', ')}`] : []),
    ...(places.size > 0
      ? [`running processes may hold values of the old layout: ${shortened([...places]).join(', ')}`]
      : []),
  ];
  if (reasons.length > 0) return `and ${reasons.join('; ')}`;
  // The values of an enumeration that types nothing are constants in code.
  if (isValue || (!isUsed && change.members.size > 0 && isConstants(change, units))) return undefined;
  return 'and where its values live cannot be told: only pointers and casts lead to it';
}

function isConstants({ name }: TypeChange, units: readonly ComparedUnit[]): boolean {
  return units.every(({ before }) => (before.layouts.get(name)?.kind ?? 'enumeration') === 'enumeration');
}

/** Uses of a type and of all types whose values contain one of it, before and after. */
function usesOf(type: string, { before, after }: ComparedUnit): TypeUse[] {
  const uses = [...before.uses, ...after.uses];
  const carriers = new Set([type]);
  for (let size = 0; size < carriers.size;) {
    size = carriers.size;
    for (const { type: contained, how, as, by } of uses)
      if (as === 'field' && how === 'value' && by !== undefined && carriers.has(contained)) carriers.add(by);
  }
  return uses.filter((use) => carriers.has(use.type));
}

/** Functions with code into which `name` went: itself, and those that it is inlined into. */
function ownersOf(name: string, { before, functions }: ComparedUnit): Set<string> {
  const owners = new Set<string>();
  const seen = new Set([name]);
  for (const each of seen) {
    if (functions.has(each)) owners.add(each);
    for (const caller of before.inlined.get(each) ?? []) seen.add(caller);
  }
  return owners;
}

/** Types that a function reaches by its own variables, parameters and results, and through fields and pointers from there. */
export function reachedBy(name: string, { uses }: UnitTypes): Set<string> {
  const reached = new Set(uses.flatMap(({ by, as, type }) => (by === name && as !== 'field' ? [type] : [])));
  for (const { as, by, type } of uses) if (as === 'variable' && by === undefined) reached.add(type);
  for (let size = 0; size < reached.size;) {
    size = reached.size;
    for (const { as, by, type } of uses)
      if (as === 'field' && by !== undefined && reached.has(by)) reached.add(type);
  }
  return reached;
}
