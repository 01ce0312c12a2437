// What a proved unit of the kernel itself, or one of a module, knows about places of symbols in the running kernel.
import type { ObjectFunction } from '../build/code-object.js';
import type { ElfRelocation, ElfSymbol } from '../elf/index.js';
import type { KernelSymbol } from './changed-unit.js';
import type { KallsymsEntry } from './kallsyms.js';
import { kernelBaseName, type KernelObject, type Named } from './kernel-object.js';
import type { ShippedKernel } from './kernel-symbols.js';
import { proveUnit } from './prove-unit.js';
import { kernelSymbol, type ShippedCode } from './resolve-symbols.js';

/** Name → owner of all that modules may refer to. */
export type Exports = ReadonlyMap<string, string>;

/** `original` is part of the kernel itself. */
export function shippedInKernel(
  original: KernelObject,
  kernel: ShippedKernel,
  exports: Exports,
): ShippedCode {
  const proof = proveUnit(original, kernel);
  const place = (entry: KallsymsEntry, name: string): KernelSymbol => ({
    ...kernelSymbol(entry, kernel.positionOf(entry), 'vmlinux', name),
    isExported: exports.get(name) === 'vmlinux',
  });
  const placeAt = (address: bigint | undefined, name: string): KernelSymbol | undefined => {
    if (address === undefined) return undefined;
    const entries = kernel.at(address);
    const entry =
      entries.find((one) => one.name === name) ??
      entries.find((one) => kernelBaseName(one.name) === kernelBaseName(name));
    return entry && place(entry, name);
  };
  const addressOf = ({ sectionIndex, value }: ElfSymbol): bigint | undefined => {
    const base = proof.sections.get(sectionIndex);
    return base === undefined ? undefined : base + BigInt(value);
  };
  const alone = (name: string): KernelSymbol | undefined => {
    const [only, other] = kernel.named(name);
    return only && !other ? place(only, name) : undefined;
  };
  return {
    owner: 'vmlinux',
    provedFunction: (name) => {
      const entry = proof.functions.get(name);
      return entry && place(entry, name);
    },
    functionOf: (name) => {
      const entry = proof.functions.get(name);
      if (entry) return place(entry, name);
      const symbol = original.functions.find((part) => part.name === name)?.symbol;
      return symbol && placeAt(addressOf(symbol), name);
    },
    datumOf: (symbol) => placeAt(addressOf(symbol), symbol.name) ?? alone(symbol.name),
    externalOf: (name) => externalInKernel(name, kernel, exports) ?? placeAt(proof.externals.get(name), name),
  };
}

/** A symbol that all units of the kernel may name. */
function externalInKernel(name: string, kernel: ShippedKernel, exports: Exports): KernelSymbol | undefined {
  if (exports.get(name) === 'vmlinux') return { position: 0, isExported: true, owner: 'vmlinux' };
  // Of those of one name only one is global, and only that one is what other units mean.
  const [global, other] = kernel.named(name).filter(({ type }) => /[A-Z]/.test(type) || /[vw]/.test(type));
  if (!global || other) return undefined;
  return kernelSymbol(global, kernel.positionOf(global), 'vmlinux', name);
}

/**
 * `original`, compiled without sections of their own for functions, is part of the module `owner`, whose file is
 * `shipped`: places are counted in the order of its symbols, and what other units define is one of its own symbols, or
 * one of the kernel's.
 */
export function shippedInModule(
  original: KernelObject,
  owner: string,
  shipped: KernelObject,
  kernel: ShippedKernel,
  exports: Exports,
): ShippedCode {
  const named = (name: string): ElfSymbol[] =>
    shipped.symbols.filter((symbol) => symbol.name === name && symbol.sectionIndex !== 0);
  const place = (symbol: ElfSymbol): KernelSymbol => {
    const all = named(symbol.name);
    const position = all.length === 1 ? 0 : all.indexOf(symbol) + 1;
    return { position, isExported: exports.get(symbol.name) === owner, owner };
  };
  const alone = (name: string): KernelSymbol | undefined => {
    const [only, other] = named(name);
    return only && !other ? place(only) : undefined;
  };
  const functions = sameFunctions(original, shipped);
  const provedFunction = (name: string): KernelSymbol | undefined => {
    const symbol = functions.get(name);
    return symbol && place(symbol);
  };
  return {
    owner,
    provedFunction,
    functionOf: (name) => provedFunction(name) ?? alone(name),
    datumOf: ({ name }) => alone(name),
    externalOf: (name) => alone(name) ?? externalInKernel(name, kernel, exports),
  };
}

/** Functions of `original` that the linked module has with the same bytes and references, where there is one place. */
function sameFunctions(original: KernelObject, shipped: KernelObject): Map<string, ElfSymbol> {
  const found = new Map<string, ElfSymbol>();
  for (const part of original.functions) {
    const [only, other] = shipped.functions.filter(
      (candidate) => candidate.name === part.name && isSame(original, part, shipped, candidate),
    );
    if (only && !other) found.set(part.name, only.symbol);
  }
  return found;
}

function isSame(
  original: KernelObject,
  part: ObjectFunction,
  shipped: KernelObject,
  candidate: ObjectFunction,
): boolean {
  if (!Buffer.from(part.bytes).equals(Buffer.from(candidate.bytes))) return false;
  // The compiler writes relocations in another order than the linker.
  const inOrder = ({ relocations }: ObjectFunction): ElfRelocation[] =>
    [...relocations].sort((left, right) => left.offset - right.offset);
  const [own, others] = [inOrder(part), inOrder(candidate)];
  return (
    own.length === others.length &&
    own.every((left, index) => {
      const right = others[index];
      if (right?.offset !== left.offset || right.type !== left.type) return false;
      const [what, other] = [original.named(left, part.bytes), shipped.named(right, candidate.bytes)];
      if (what.kind === 'constant' || other.kind === 'constant')
        return original.identity(left, part.bytes) === shipped.identity(right, candidate.bytes);
      // Data without names moves when units are linked.
      const [name, otherName] = [nameOf(what), nameOf(other)];
      return name === undefined || otherName === undefined || name === otherName;
    })
  );
}

function nameOf(named: Named): string | undefined {
  if (named.kind === 'external') return kernelBaseName(named.name);
  return 'symbol' in named ? kernelBaseName(named.symbol.name) : undefined;
}
