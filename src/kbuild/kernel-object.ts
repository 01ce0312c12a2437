// A compiled unit of the kernel: functions together with their entries of the special sections, data by their names.
import { baseName, CodeObject, digest, type ObjectFunction } from '../build/code-object.js';
import {
  relocationType,
  sectionFlag,
  sectionType,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';
import { distanceToEnd } from './operand-end.js';
import {
  replacementSection,
  specialEntries,
  specialSections,
  type SpecialEntry,
} from './special-sections.js';

/** Name without the numbers that compiler and preprocessor give out. */
export const kernelBaseName = (name: string): string =>
  baseName(name).replace(/^(__UNIQUE_ID_\w*?)\d+$/, '$1');

/** Data that each use has for itself: flags of WARN_ONCE and the like, descriptors of pr_debug. */
export const isPrivateData = (section: ElfSection): boolean =>
  /^(?:__dyndbg|\.data\.\.?once.*|\.data\.unlikely.*)$/.test(section.name);

/** The unlikely part of a function, which GCC puts elsewhere. */
export const isCold = (name: string): boolean => /\.cold(?:\.\d+)?$/.test(name);

const relativeTypes: ReadonlySet<number> = new Set([relocationType.pc32, relocationType.plt32]);

/** What a relocation names: a symbol of another unit, or a function or datum of this one. */
export type Named =
  | { readonly kind: 'external'; readonly name: string }
  | { readonly kind: 'function' | 'datum'; readonly symbol: ElfSymbol; readonly section: ElfSection }
  | { readonly kind: 'constant' }
  | { readonly kind: 'nameless'; readonly section: ElfSection };

export interface OwnedEntry {
  readonly entry: SpecialEntry;
  /** Of the place in the function. */
  readonly offset: number;
  readonly relocations: readonly ElfRelocation[];
}

export class KernelObject extends CodeObject {
  /** Objects of data sections, in the order of the symbol table. */
  readonly data: readonly ElfSymbol[];
  readonly #symbolsBySection = new Map<number, ElfSymbol[]>();
  readonly #entries = new Map<string, OwnedEntry[]>();

  constructor(bytes: Uint8Array) {
    super(bytes);
    for (const symbol of this.symbols) {
      if (symbol.type !== 'function' && symbol.type !== 'object') continue;
      const known = this.#symbolsBySection.get(symbol.sectionIndex);
      if (known) known.push(symbol);
      else this.#symbolsBySection.set(symbol.sectionIndex, [symbol]);
    }
    this.data = this.symbols.filter(
      (symbol) => symbol.type === 'object' && isKernelData(this.elf.sections[symbol.sectionIndex]),
    );
    for (const entry of specialEntries(this.elf, this.symbols)) this.#addEntry(entry);
  }

  #addEntry(entry: SpecialEntry): void {
    const relocations = this.relocations(entry.section).filter(
      ({ offset }) => offset >= entry.start && offset < entry.end,
    );
    const first = relocations.find(({ offset }) => offset === entry.start);
    const symbol = first && this.symbols[first.symbolIndex];
    if (!symbol) return;
    const place = symbol.value + first.addend;
    const owner = this.#symbolAt(entry.codeSection, place);
    const key = `${entry.codeSection} ${owner?.value ?? 0}`;
    const known = this.#entries.get(key) ?? [];
    known.push({ entry, offset: place - (owner?.value ?? 0), relocations });
    this.#entries.set(key, known);
  }

  /** Entries of special sections about places in `part`. */
  entriesOf(part: ObjectFunction): readonly OwnedEntry[] {
    return this.#entries.get(`${part.section.index} ${part.offset}`) ?? [];
  }

  #symbolAt(sectionIndex: number, place: number): ElfSymbol | undefined {
    const all = this.#symbolsBySection.get(sectionIndex) ?? [];
    return (
      all.find(({ value, size }) => place >= value && place < value + Math.max(size, 1)) ??
      // Code also computes addresses around a datum, and places right behind a function.
      (all.length === 1 ? all[0] : all.find(({ value, size }) => place === value + size))
    );
  }

  /** What `relocation` is about; `code` is what it is in, undefined for a table of data. */
  named(relocation: ElfRelocation, code?: Uint8Array): Named {
    const symbol = this.symbols[relocation.symbolIndex];
    const section = symbol && this.elf.sections[symbol.sectionIndex];
    if (!symbol || !section || section.type === sectionType.null)
      return { kind: 'external', name: symbol?.name ?? '' };
    if ((section.flags & sectionFlag.merge) !== 0) return { kind: 'constant' };
    const isCode = (section.flags & sectionFlag.execute) !== 0;
    const kind = isCode ? 'function' : 'datum';
    if (symbol.type === 'object' || symbol.type === 'function') return { kind, symbol, section };
    const isRelative = code !== undefined && relativeTypes.has(relocation.type);
    const distance = isRelative ? distanceToEnd(code, relocation.offset) : 0;
    const found = this.#symbolAt(section.index, symbol.value + relocation.addend + distance);
    return found ? { kind, symbol: found, section } : { kind: 'nameless', section };
  }

  override identityIn(part: ObjectFunction, relocation: ElfRelocation): string {
    return this.identity(relocation, part.bytes);
  }

  override identity(relocation: ElfRelocation, code?: Uint8Array): string {
    const named = this.named(relocation, code);
    if (named.kind === 'external')
      return `${relocation.type} ${relocation.addend} external ${kernelBaseName(named.name)}`;
    if (named.kind !== 'function' && named.kind !== 'datum') return super.identity(relocation);
    const { symbol, section } = named;
    const own = this.symbols[relocation.symbolIndex]?.value ?? 0;
    const content = isCopied(symbol, section) ? this.contentOf(symbol) : '';
    const distance = own + relocation.addend - symbol.value;
    return `${relocation.type} ${distance} ${named.kind} ${kernelBaseName(symbol.name)} ${content}`;
  }

  override readonly attachments = (part: ObjectFunction): string =>
    this.entriesOf(part)
      .filter(({ entry }) => !entry.section.name.startsWith('.orc_'))
      .map((owned) => this.#entryIdentity(owned))
      .sort()
      .join('\n');

  #entryIdentity({ entry, offset, relocations }: OwnedEntry): string {
    const { section, start, end, replacement } = entry;
    const bytes = Uint8Array.from(section.bytes.subarray(start, end));
    // struct bug_entry: the line number.
    if (section.name === '__bug_table') bytes.fill(0, 8, 10);
    const references = relocations
      .filter((relocation) => relocation.offset !== start && !this.#isReplacement(relocation))
      .map((relocation) => `${relocation.offset - start} ${this.identity(relocation)}`);
    if (replacement) {
      const inside = this.relocations(replacement.section).filter(
        (relocation) => relocation.offset >= replacement.start && relocation.offset < replacement.end,
      );
      references.push(digest(replacement.section.bytes.subarray(replacement.start, replacement.end)));
      for (const relocation of inside)
        references.push(
          `${relocation.offset - replacement.start} ${this.identity(relocation, replacement.section.bytes)}`,
        );
    }
    return `${section.name} ${offset} ${digest(bytes)} ${references.join(' ')}`;
  }

  #isReplacement({ symbolIndex }: ElfRelocation): boolean {
    const symbol = this.symbols[symbolIndex];
    return symbol !== undefined && this.elf.sections[symbol.sectionIndex]?.name === replacementSection;
  }

  /** Equal for equal contents and references of a datum. */
  contentOf(symbol: ElfSymbol): string {
    const section = this.elf.sections[symbol.sectionIndex];
    if (!section) return '';
    const end = symbol.value + symbol.size;
    const relocations = this.relocations(section)
      .filter(({ offset }) => offset >= symbol.value && offset < end)
      .map((relocation) => {
        const named = this.named(relocation);
        const name =
          'symbol' in named ? kernelBaseName(named.symbol.name) : named.kind === 'external' ? named.name : '';
        const what = named.kind === 'constant' ? super.identity(relocation) : name;
        return `${relocation.offset - symbol.value} ${relocation.type} ${what}`;
      });
    return digest(
      Buffer.from(
        `${symbol.size} ${digest(section.bytes.subarray(symbol.value, end))} ${relocations.join('\n')}`,
      ),
    );
  }

  relocationsOfDatum(symbol: ElfSymbol): ElfRelocation[] {
    const section = this.elf.sections[symbol.sectionIndex];
    if (!section) return [];
    return this.relocations(section).filter(
      ({ offset }) => offset >= symbol.value && offset < symbol.value + symbol.size,
    );
  }
}

/** Constants that only this unit knows are copied into the patch: their contents count as code does. */
export const isCopied = (symbol: ElfSymbol, section: ElfSection): boolean =>
  symbol.type === 'object' && symbol.binding === 'local' && (section.flags & sectionFlag.write) === 0;

const ownTables =
  /^(?:\.discard|\.modinfo|__ksymtab|___ksymtab|__kcrctab|\.export_symbol|\.note|\.orc_|\.initcall|\.init\.|\.exit\.)/;

/** Whether a section holds data of the unit's source, not what tools make for the kernel's tables. */
export function isKernelData(section: ElfSection | undefined): boolean {
  return (
    section !== undefined &&
    (section.flags & sectionFlag.alloc) !== 0 &&
    (section.flags & (sectionFlag.execute | sectionFlag.merge)) === 0 &&
    (section.type === sectionType.progbits || section.type === sectionType.nobits) &&
    specialSections[section.name] === undefined &&
    !ownTables.test(section.name)
  );
}
