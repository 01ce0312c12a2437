// The last step of making a livepatch module: what refers to placeholders becomes livepatch relocations.
import { KcareError } from '../base/errors.js';
import {
  fileType,
  parseElf,
  readRelocations,
  readSymbols,
  sectionFlag,
  sectionIndex,
  sectionType,
  symbolBindings,
  symbolTypes,
  type ElfFile,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';
import {
  encodeRelocations,
  encodeSymbols,
  StringTable,
  writeSections,
  type SectionWithLinks,
} from '../patchfile/index.js';
import { livePatchSectionName, livePatchSymbolName, parsePlaceholder } from './livepatch-symbols.js';

/**
 * The module `linked` with livepatch relocations for its placeholders, replacements under the names of what they
 * replace, and without what the kernel does not load. Source: https://docs.kernel.org/livepatch/module-elf-format.html.
 * Throws ELF_MALFORMED.
 */
export function resolvePlaceholders(linked: Uint8Array): Uint8Array {
  return new Finisher(linked).bytes();
}

const isDropped = (section: ElfSection): boolean =>
  section.type === sectionType.null ||
  section.type === sectionType.rela ||
  section.type === sectionType.symtab ||
  section.type === sectionType.strtab ||
  /^\.(?:comment|note\.GNU-stack|debug_.*|discard.*)$/.test(section.name);

class Finisher {
  readonly #elf: ElfFile;
  readonly #kept: readonly ElfSection[];
  readonly #newIndex: ReadonlyMap<number, number>;
  readonly #symbols: readonly ElfSymbol[];
  /** Old index of a symbol → new one, the null symbol not counted. */
  readonly #symbolIndex: ReadonlyMap<number, number>;

  constructor(linked: Uint8Array) {
    this.#elf = parseElf(linked);
    this.#kept = this.#elf.sections.filter((section) => !isDropped(section));
    this.#newIndex = new Map(this.#kept.map((section, index) => [section.index, index + 1]));
    const used = new Set(
      this.#relocations().flatMap(({ entries }) => entries.map(({ symbolIndex }) => symbolIndex)),
    );
    const kept = readSymbols(this.#elf, '.symtab').filter(
      (symbol) =>
        symbol.index !== 0 &&
        (symbol.sectionIndex === sectionIndex.undefined
          ? used.has(symbol.index)
          : symbol.sectionIndex >= sectionIndex.firstReserved || this.#newIndex.has(symbol.sectionIndex)),
    );
    const isLocal = (symbol: ElfSymbol): boolean => symbol.binding === 'local' || isReplacement(symbol.name);
    this.#symbols = [...kept.filter(isLocal), ...kept.filter((symbol) => !isLocal(symbol))];
    this.#symbolIndex = new Map(this.#symbols.map((symbol, index) => [symbol.index, index]));
  }

  /** The relocations of all sections that are kept. */
  #relocations(): { readonly target: ElfSection; readonly entries: readonly ElfRelocation[] }[] {
    return this.#elf.sections.flatMap((section) => {
      const target = this.#elf.sections[section.info];
      return section.type === sectionType.rela && target && this.#newIndex.has(target.index)
        ? [{ target, entries: readRelocations(section) }]
        : [];
    });
  }

  bytes(): Uint8Array {
    const tables = this.#relocations().flatMap(({ target, entries }) => this.#tablesOf(target, entries));
    const symbolTable = this.#kept.length + tables.length + 1;
    const strings = new StringTable();
    const records = this.#symbols.map((symbol) => recordOf(symbol, this.#newIndex));
    const headers: SectionWithLinks[] = [
      ...this.#kept.map(({ name, type, flags, alignment, entrySize, bytes, size }) => ({
        ...{ name, type, flags, alignment, entrySize, bytes, size, link: 0, info: 0 },
      })),
      ...tables.map((table) => ({ ...table, link: symbolTable })),
      {
        ...{ name: '.symtab', type: sectionType.symtab, flags: 0, alignment: 8, entrySize: 24 },
        ...{ link: symbolTable + 1, info: records.filter(({ binding }) => binding === 0).length + 1 },
        bytes: encodeSymbols(records, strings),
      },
      {
        ...{ name: '.strtab', type: sectionType.strtab, flags: 0, alignment: 1, link: 0, info: 0 },
        bytes: strings.bytes(),
      },
    ];
    return writeSections(fileType.relocatable, headers);
  }

  /** One table of ordinary relocations, and one for each object whose loading resolves some. */
  #tablesOf(target: ElfSection, entries: readonly ElfRelocation[]): Omit<SectionWithLinks, 'link'>[] {
    const groups = new Map<string, ElfRelocation[]>();
    for (const entry of entries) {
      const symbol = this.#symbols[this.#symbolIndex.get(entry.symbolIndex) ?? -1];
      if (!symbol)
        throw new KcareError('ELF_MALFORMED', `${target.name} refers to a section that is dropped.`);
      const patched = parsePlaceholder(symbol.name)?.patched ?? '';
      groups.set(patched, [...(groups.get(patched) ?? []), entry]);
    }
    return [...groups].map(([patched, group]) => ({
      name: patched === '' ? `.rela${target.name}` : livePatchSectionName(patched, target.name),
      type: sectionType.rela,
      flags: patched === '' ? sectionFlag.infoLink : sectionFlag.alloc | sectionFlag.livePatchRelocations,
      ...{ alignment: 8, entrySize: 24, info: this.#newIndex.get(target.index) ?? 0 },
      bytes: encodeRelocations(
        group.map(({ symbolIndex, ...entry }) => ({
          ...entry,
          symbol: this.#symbolIndex.get(symbolIndex) ?? 0,
        })),
      ),
    }));
  }
}

const isReplacement = (name: string): boolean => name.startsWith('kcare.replacement.');

function recordOf(symbol: ElfSymbol, newIndex: ReadonlyMap<number, number>) {
  const { value, size, visibility } = symbol;
  const type = symbolTypes.indexOf(symbol.type as (typeof symbolTypes)[number]);
  const binding = symbolBindings.indexOf(symbol.binding as (typeof symbolBindings)[number]);
  if (type < 0 || binding < 0)
    throw new KcareError('ELF_MALFORMED', `The symbol ${symbol.name} is of an unknown kind.`);
  const livePatch = parsePlaceholder(symbol.name);
  if (livePatch)
    return {
      ...{ name: livePatchSymbolName(livePatch), value: 0, size: 0, type, binding, visibility: 0 },
      sectionIndex: sectionIndex.livePatch,
    };
  const name = symbol.name.replace(/^kcare\.replacement\.\d+\.\d+\./, '');
  const section =
    symbol.sectionIndex >= sectionIndex.firstReserved
      ? symbol.sectionIndex
      : (newIndex.get(symbol.sectionIndex) ?? 0);
  const isLocal = isReplacement(symbol.name);
  return { name, value, size, type, binding: isLocal ? 0 : binding, visibility, sectionIndex: section };
}
