// Compares two compiles of one unit of the kernel: which functions change, and what a running kernel cannot take over.
import { compareFunctions, coldSuffix, type Comparison } from '../build/compare.js';
import { type ObjectFunction } from '../build/code-object.js';
import { sectionFlag, type ElfSymbol } from '../elf/index.js';
import { Refusals } from '../build/result.js';
import { isCopied, isPrivateData, kernelBaseName, type KernelObject } from './kernel-object.js';
import type { KernelRefusalCode } from './refusals.js';

export type KernelRefusals = Refusals<KernelRefusalCode>;

/** Both compiled with a section for each function and datum. */
export function compareKernelObjects(
  original: KernelObject,
  changed: KernelObject,
  refusals: KernelRefusals,
): Comparison {
  const comparison = compareFunctions(original, changed, refusals);
  compareData(original, changed, refusals);
  compareExports(original, changed, refusals);
  const pairs = comparison.changed;
  for (const { original: part } of pairs) checkPatchable(original, part, refusals);
  for (const part of comparison.added) checkInit(part, refusals);
  checkKeys(original, changed, [...pairs.map(({ patched }) => patched), ...comparison.added], refusals);
  return comparison;
}

function checkInit({ section, base }: ObjectFunction, refusals: KernelRefusals): boolean {
  if (!/^\.(?:init|exit|ref)\b/.test(section.name)) return false;
  const message = `${base} is in ${section.name}, which is not there in a kernel that runs`;
  refusals.add('KERNEL_INIT', message, base);
  return true;
}

function checkPatchable(object: KernelObject, part: ObjectFunction, refusals: KernelRefusals): void {
  if (part.base.endsWith(coldSuffix) || checkInit(part, refusals)) return;
  const places = object.entriesOf(part).map(({ entry }) => entry.section.name);
  if (places.includes('__mcount_loc') || places.includes('__patchable_function_entries')) return;
  refusals.add('KERNEL_UNPATCHABLE', `${part.base} has no place for the tracer at its begin`, part.base);
}

function grouped(object: KernelObject): Map<string, ElfSymbol[]> {
  const groups = new Map<string, ElfSymbol[]>();
  for (const symbol of object.data) {
    const base = kernelBaseName(symbol.name);
    groups.set(base, [...(groups.get(base) ?? []), symbol]);
  }
  return groups;
}

/** Data that both have must be equal, unless each use has its own or it is constant and private: then it is copied. */
function compareData(original: KernelObject, changed: KernelObject, refusals: KernelRefusals): void {
  const before = grouped(original);
  const keys = staticKeys(changed);
  for (const [base, symbols] of grouped(changed)) {
    const old = before.get(base);
    for (const symbol of symbols) {
      const section = changed.elf.sections[symbol.sectionIndex];
      if (!section || isPrivateData(section) || isCopied(symbol, section)) continue;
      if (!old) {
        if (section.name.startsWith('.data..percpu'))
          refusals.add('CHANGED_DATA', `${symbol.name} is new data of each processor`);
        continue;
      }
      if (old.some((one) => original.contentOf(one) === changed.contentOf(symbol))) continue;
      const code = keys.has(base) ? 'KERNEL_STATIC_KEY' : 'CHANGED_DATA';
      const isLarger = old.every(({ size }) => size !== symbol.size);
      const what = isLarger ? `has another size (${symbol.size} bytes)` : 'has other initial contents';
      refusals.add(code, `${base} ${what}; the running kernel holds it already`);
    }
  }
  // Several data share a section where the source names one: places in it are counted from its begin.
  for (const name of sharedSections(original)) {
    if (layoutOf(original, name) !== layoutOf(changed, name))
      refusals.add('CHANGED_DATA', `the layout of ${name} changed; its data could not be told apart`);
  }
}

const layoutOf = (object: KernelObject, name: string): string =>
  object.data
    .filter(({ sectionIndex }) => object.elf.sections[sectionIndex]?.name === name)
    .map((symbol) => `${symbol.value} ${symbol.size} ${kernelBaseName(symbol.name)}`)
    .sort()
    .join('\n');

function sharedSections(object: KernelObject): Set<string> {
  const counts = new Map<number, number>();
  for (const { sectionIndex } of object.data) counts.set(sectionIndex, (counts.get(sectionIndex) ?? 0) + 1);
  const shared = object.elf.sections.filter(
    (section) =>
      (counts.get(section.index) ?? 0) > 1 &&
      !isPrivateData(section) &&
      (section.flags & sectionFlag.write) !== 0,
  );
  return new Set(shared.map(({ name }) => name));
}

/** Base names of what jump labels are set by. */
function staticKeys(object: KernelObject): Set<string> {
  const keys = new Set<string>();
  for (const part of object.functions)
    for (const name of keysOf(object, part)) if (name !== undefined) keys.add(kernelBaseName(name));
  return keys;
}

/** struct jump_entry: the key comes at 8, behind the code and its target. */
function keysOf(object: KernelObject, part: ObjectFunction): (string | undefined)[] {
  return object
    .entriesOf(part)
    .filter(({ entry }) => entry.section.name === '__jump_table')
    .map(({ entry, relocations }) => {
      const key = relocations.find(({ offset }) => offset === entry.start + 8);
      const named = key && object.named(key);
      return named?.kind === 'datum' && !isPrivateData(named.section) ? named.symbol.name : undefined;
    });
}

function checkKeys(
  original: KernelObject,
  changed: KernelObject,
  parts: readonly ObjectFunction[],
  refusals: KernelRefusals,
): void {
  const known = grouped(original);
  for (const part of parts)
    for (const key of keysOf(changed, part))
      if (key !== undefined && !known.has(kernelBaseName(key)))
        refusals.add(
          'KERNEL_STATIC_KEY',
          `${part.base} jumps by the static key ${key}, which is new`,
          part.base,
        );
}

function compareExports(original: KernelObject, changed: KernelObject, refusals: KernelRefusals): void {
  const exportsOf = ({ elf }: KernelObject): Set<string> =>
    new Set(elf.sections.filter(({ name }) => name.startsWith('___ksymtab')).map(({ name }) => name));
  const [before, after] = [exportsOf(original), exportsOf(changed)];
  const nameOf = (section: string): string => section.replace(/^.*\+/, '');
  for (const name of before)
    if (!after.has(name)) refusals.add('KERNEL_ABI', `${nameOf(name)} is exported no more, or otherwise`);
  for (const name of after)
    if (!before.has(name)) refusals.add('KERNEL_ABI', `${nameOf(name)} is newly exported, or otherwise`);
}
