// Which functions, data and symbols of the running kernel the changed code of a unit needs, each with its proved place.
import type { Comparison } from '../build/compare.js';
import type { ObjectFunction } from '../build/code-object.js';
import type { ElfRelocation, ElfSymbol } from '../elf/index.js';
import type { ChangedUnit, KernelSymbol } from './changed-unit.js';
import type { KernelRefusals } from './compare-kernel.js';
import type { KallsymsEntry } from './kallsyms.js';
import { isCold, isCopied, isPrivateData, kernelBaseName, type KernelObject } from './kernel-object.js';

/** The shipped kernel or module, as a unit sees it. */
export interface ShippedCode {
  /** `vmlinux` or the name of the module. */
  readonly owner: string;
  /** Where a function of the original object is, byte for byte; undefined: not proved. */
  readonly provedFunction: (name: string) => KernelSymbol | undefined;
  /** Where calls of a function of the original object lead. */
  readonly functionOf: (name: string) => KernelSymbol | undefined;
  /** Where a datum of the original object is. */
  readonly datumOf: (symbol: ElfSymbol) => KernelSymbol | undefined;
  /** A symbol of another unit; undefined: unknown or not to be told apart. */
  readonly externalOf: (name: string) => KernelSymbol | undefined;
}

export type CarriedParts = Pick<ChangedUnit, 'changedFunctions' | 'newFunctions' | 'newData' | 'symbols'>;

export const kernelSymbol = (
  entry: Pick<KallsymsEntry, 'name'>,
  position: number,
  owner: string,
  name: string,
): KernelSymbol => ({ position, isExported: false, owner, ...(entry.name !== name && { name: entry.name }) });

export function resolveCarried(
  original: KernelObject,
  changed: KernelObject,
  comparison: Comparison,
  shipped: ShippedCode,
  refusals: KernelRefusals,
): CarriedParts {
  const resolver = new Resolver(original, changed, comparison, shipped, refusals);
  resolver.run();
  return {
    changedFunctions: comparison.changed.map(({ patched }) => patched.name).filter((name) => !isCold(name)),
    newFunctions: [...resolver.newFunctions],
    newData: [...resolver.newData],
    symbols: resolver.symbols,
  };
}

/** `symbol`, found by the name `original`, under another name. */
const named = (symbol: KernelSymbol, original: string, name: string): KernelSymbol =>
  symbol.name === undefined && original !== name ? { ...symbol, name: original } : symbol;

class Resolver {
  readonly newFunctions = new Set<string>();
  readonly newData = new Set<string>();
  readonly symbols = new Map<string, KernelSymbol>();
  /** Functions that are refused already, and unlikely parts, which go with their functions. */
  readonly #settled = new Set<string>();
  readonly #queue: ObjectFunction[] = [];

  constructor(
    private readonly original: KernelObject,
    private readonly changed: KernelObject,
    private readonly comparison: Comparison,
    private readonly shipped: ShippedCode,
    private readonly refusals: KernelRefusals,
  ) {}

  run(): void {
    for (const { original, patched } of this.comparison.changed) {
      if (isCold(patched.name)) continue;
      const place = this.shipped.provedFunction(original.name);
      if (place) this.symbols.set(patched.name, named(place, original.name, patched.name));
      else {
        const message = `${original.name} is not found in ${this.shipped.owner} as it compiles here`;
        this.refusals.add('KERNEL_NOT_PROVED', message, original.base);
        this.#settled.add(patched.name);
      }
      this.#queue.push(patched);
    }
    for (let part = this.#queue.shift(); part; part = this.#queue.shift()) this.#readPart(part);
  }

  #readPart(part: ObjectFunction): void {
    for (const relocation of this.changed.relocations(part.section))
      if (relocation.offset >= part.offset && relocation.offset < part.offset + part.size)
        this.#need(relocation, part, part.section.bytes);
    for (const { entry, relocations } of this.changed.entriesOf(part)) {
      for (const relocation of relocations) this.#need(relocation, part);
      const { replacement } = entry;
      if (!replacement) continue;
      for (const relocation of this.changed.relocations(replacement.section))
        if (relocation.offset >= replacement.start && relocation.offset < replacement.end)
          this.#need(relocation, part, replacement.section.bytes);
    }
  }

  #need(relocation: ElfRelocation, user: ObjectFunction, code?: Uint8Array): void {
    const named = this.changed.named(relocation, code);
    if (named.kind === 'external') this.#needExternal(named.name, user);
    else if (named.kind === 'function') this.#needFunction(named.symbol, user);
    else if (named.kind === 'datum') this.#needDatum(named.symbol, user);
  }

  #needExternal(name: string, user: ObjectFunction): void {
    if (name === '' || this.symbols.has(name)) return;
    const found = this.shipped.externalOf(name);
    if (found) this.symbols.set(name, found);
    else this.#unresolved(name, user);
  }

  #unresolved(name: string, user: ObjectFunction): void {
    const message = `${user.base} needs ${name}, of which it cannot be proved where the kernel has it`;
    this.refusals.add('UNRESOLVED_SYMBOL', message, user.base);
  }

  #needFunction(symbol: ElfSymbol, user: ObjectFunction): void {
    const { name } = symbol;
    if (this.symbols.has(name) || this.newFunctions.has(name) || this.#settled.has(name)) return;
    if (isCold(name)) {
      this.#settled.add(name);
      this.#queue.push(...this.changed.functions.filter((part) => part.name === name));
      return;
    }
    const added = this.comparison.added.find((part) => part.name === name);
    if (added) {
      this.newFunctions.add(name);
      this.#queue.push(added);
      return;
    }
    const counterpart = this.#counterpartOf(name);
    if (!counterpart) return;
    const found = this.shipped.functionOf(counterpart);
    if (found) this.symbols.set(name, named(found, counterpart, name));
    else this.#unresolved(name, user);
  }

  /** The original function of a changed object's one: compilers number copies anew. Comparing pairs them so, too. */
  #counterpartOf(name: string): string | undefined {
    const part = this.changed.functions.find((one) => one.name === name);
    if (!part) return undefined;
    const copies = (object: KernelObject): string[] =>
      object.functions.filter(({ base }) => base === part.base).map((one) => one.name);
    return copies(this.original)[copies(this.changed).indexOf(name)];
  }

  #needDatum(symbol: ElfSymbol, user: ObjectFunction): void {
    const { name } = symbol;
    const section = this.changed.elf.sections[symbol.sectionIndex];
    if (!section || this.symbols.has(name) || this.newData.has(name) || isPrivateData(section)) return;
    // Tables of addresses are in sections of the tools' own; they hold no data.
    if (!this.changed.data.includes(symbol)) return;
    const base = kernelBaseName(name);
    const old = this.original.data.filter((one) => kernelBaseName(one.name) === base);
    if (old.length === 0) {
      this.newData.add(name);
      this.#readDatum(symbol, user);
      return;
    }
    const candidates = old.length === 1 ? old : this.#usedBy(user, base);
    const [only, other] = candidates;
    const isChanged = only !== undefined && this.original.contentOf(only) !== this.changed.contentOf(symbol);
    const found = only && !other && !isChanged ? this.shipped.datumOf(only) : undefined;
    if (found && only) this.symbols.set(name, named(found, only.name, name));
    else if (isCopied(symbol, section)) this.#readDatum(symbol, user);
    else this.#unresolved(name, user);
  }

  /** What a copied datum points to. */
  #readDatum(symbol: ElfSymbol, user: ObjectFunction): void {
    for (const relocation of this.changed.relocationsOfDatum(symbol)) this.#need(relocation, user);
  }

  /** Of several local statics of one name: those that the original of `user` refers to. */
  #usedBy(user: ObjectFunction, base: string): ElfSymbol[] {
    const pair = this.comparison.changed.find(({ patched }) => patched.name === user.name);
    if (!pair) return [];
    const found = new Set<ElfSymbol>();
    const { section, offset, size } = pair.original;
    for (const relocation of this.original.relocations(section)) {
      if (relocation.offset < offset || relocation.offset >= offset + size) continue;
      const named = this.original.named(relocation, section.bytes);
      if (named.kind === 'datum' && kernelBaseName(named.symbol.name) === base) found.add(named.symbol);
    }
    return [...found];
  }
}
