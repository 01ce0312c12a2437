// Which inputs of a link may be a certain unit, and where the linker's map says that its sections went.
import path from 'node:path';
import type { CodeObject } from '../build/code-object.js';
import type { SectionHints } from '../build/correlate.js';
import { sectionFlag, sectionType } from '../elf/index.js';
import type { LinkMap, PlacedSection } from './link-map.js';
import type { RecordedCompile, RecordedLink } from './records.js';

/** `lib/libx.a(unit.o)`; a bare path otherwise. */
const inArchive = /^(.*)\(([^()]+)\)$/;
/** GCC and Clang name the objects between compile and link so, when one command does both. */
const temporaryObject = /\/(?:cc\w{6}|[\w+-]+-[0-9a-f]{6,})\.(?:o|ltrans\d*\.o)$/;

export interface MemberQuestion {
  readonly compile: RecordedCompile;
  readonly link: RecordedLink;
  readonly map: LinkMap;
  /** Objects of all recorded compiles. */
  readonly objects: ReadonlySet<string>;
}

export interface MemberInputs {
  /** Inputs whose names speak for the unit. */
  readonly named: readonly string[];
  /** Inputs that no recorded compile explains: builds rename objects. Only bytes can tell. */
  readonly unexplained: readonly string[];
}

/** The inputs that may be the unit. Names in archives and of copies leave doubt; bytes decide. */
export function inputsOf(question: MemberQuestion): MemberInputs {
  const { compile, link, map, objects } = question;
  const { object } = compile;
  if (object === undefined) return { named: temporaryInputs(question), unexplained: [] };
  const inputs = [...map.inputs.keys()];
  const whole = (input: string): string => path.resolve(link.directory, input);
  const exact = inputs.filter((input) => whole(input) === object);
  if (exact.length > 0) return { named: exact, unexplained: [] };
  const names = new Set([...objects].map((file) => path.basename(file)));
  const memberOf = (input: string): string | undefined => inArchive.exec(input)?.[2];
  // Libtool unpacks archives beside its libraries; an object that another command made is that one.
  const others = inputs.filter((input) => memberOf(input) !== undefined || !objects.has(whole(input)));
  const nameOf = (input: string): string => path.basename(memberOf(input) ?? input);
  const stem = (file: string): string => path.basename(file).replace(/\.[^.]*$/, '');
  const named = others.filter(
    (input) =>
      nameOf(input) === path.basename(object) ||
      (!names.has(nameOf(input)) && stem(nameOf(input)) === stem(object)),
  );
  const unexplained = others.filter((input) => !named.includes(input) && !names.has(nameOf(input)));
  return { named, unexplained };
}

function temporaryInputs({ compile, link, map }: MemberQuestion): string[] {
  const place = link.compiles.indexOf(compile);
  if (place < 0) return [];
  const temporary = map.loaded.filter((file) => temporaryObject.test(file));
  const own = temporary.length === link.compiles.length ? temporary[place] : undefined;
  return own === undefined ? temporary : [own];
}

/** Addresses of the sections of `object`; undefined when the linker's sections are not these. */
export function hintsOf(object: CodeObject, placed: readonly PlacedSection[]): SectionHints | undefined {
  const hints = new Map<number, number>();
  const byName = new Map<string, PlacedSection[]>();
  for (const section of placed) byName.set(section.name, [...(byName.get(section.name) ?? []), section]);
  const own = object.elf.sections.filter(
    ({ flags, size, name, type }) =>
      (type === sectionType.progbits || type === sectionType.nobits) &&
      (flags & (sectionFlag.alloc | sectionFlag.merge)) === sectionFlag.alloc &&
      size > 0 &&
      name !== '.eh_frame',
  );
  for (const [name, places] of byName) {
    const sections = own.filter((section) => section.name === name);
    // Of sections with one name (copies of templates) some may have been thrown away: which ones, the map does not say.
    if (sections.length !== places.length) {
      if (sections.length === 0 && name.startsWith('.text')) return undefined;
      continue;
    }
    for (const [index, section] of sections.entries()) {
      const place = places[index];
      if (place?.size !== section.size) return undefined;
      hints.set(section.index, place.address);
    }
  }
  return hints;
}
