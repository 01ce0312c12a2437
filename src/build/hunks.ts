// Hunks of a unit: which functions of the shipped object get a jump, and where no thread may be at that moment.
import { jumpCrossesPage, jumpSize, type Hunk } from '../patchfile/index.js';
import type { ObjectFunction } from './code-object.js';
import { coldSuffix } from './compare.js';
import { takesOwnAddress } from './instructions.js';
import type { Refusals } from './result.js';
import type { ShippedObject } from './shipped-object.js';
import type { SymbolResolver } from './symbol-resolver.js';
import { originalOf, type Unit } from './unit.js';

/** The hunks of `unit`; functions that cannot be replaced go to `refusals`. `nameOf` names new functions. */
export function hunksOf(
  unit: Unit,
  nameOf: (part: ObjectFunction) => string,
  shipped: ShippedObject,
  refusals: Refusals,
): Hunk[] {
  const { changed, removed } = unit.comparison;
  const whole = changed.filter(({ original }) => !original.base.endsWith(coldSuffix));
  const replaced = whole.flatMap(({ original, patched }) => {
    const hunk = locate(unit, original, shipped, refusals, true);
    if (!hunk) return [];
    if (takesOwnAddress(patched)) {
      // R7: the pointer would lead into the patch and outlive it.
      refusals.add('UNSUPPORTED_RELOCATION', `${original.name} takes its own address`, original.name);
    }
    if (hunk.size < jumpSize) {
      const message = `${original.name} has ${hunk.size} bytes, fewer than a jump needs`;
      refusals.add('TOO_SHORT', message, original.name);
      return [];
    }
    if (jumpCrossesPage(hunk)) {
      const message = `the jump at the start of ${original.name} would cross a page boundary`;
      refusals.add('JUMP_CROSSES_PAGE', message, original.name);
      return [];
    }
    return [{ ...hunk, kind: 'replace', replacement: nameOf(patched) } satisfies Hunk];
  });
  // The distribution's flags decide which unlikely parts there are, not the flags of the comparison.
  const families = new Set([
    ...whole.map(({ original }) => original.base),
    ...removed.map(({ base }) => base),
  ]);
  const cold = unit.placement.unit.functions.filter(
    ({ base }) => base.endsWith(coldSuffix) && families.has(base.slice(0, -coldSuffix.length)),
  );
  const gone = removed.filter(
    ({ base }) =>
      !base.endsWith(coldSuffix) && unit.placement.unit.functions.some((part) => part.base === base),
  );
  const guards = [...cold, ...gone].flatMap((part): Hunk[] => {
    const hunk = locate(unit, part, shipped, refusals, false);
    return hunk ? [{ ...hunk, kind: 'guard' }] : [];
  });
  return [...replaced, ...guards];
}

function locate(
  unit: Unit,
  part: ObjectFunction,
  shipped: ShippedObject,
  refusals: Refusals,
  isReplaced: boolean,
): Pick<Hunk, 'name' | 'address' | 'size' | 'original'> | undefined {
  const { name } = part;
  const place = originalOf(unit, part);
  if (place === 'ambiguous') {
    refusals.add('AMBIGUOUS', `${name} cannot be told from other copies in ${unit.file}`, name);
    return undefined;
  }
  if (place === undefined) {
    const problem = isReplaced
      ? 'has no code of its own in the shipped object'
      : 'is not found in the shipped object';
    refusals.add('NOT_FOUND_IN_OBJECT', `${name} of ${unit.file} ${problem}`, name);
    return undefined;
  }
  const { address, size } = place;
  return { name, address, size, original: Uint8Array.from(shipped.bytesAt(address, size)) };
}

/** Records how the functions of a unit were found. */
export function proveUnit(
  unit: Unit,
  hunks: readonly Hunk[],
  shipped: ShippedObject,
  resolver: SymbolResolver,
): void {
  const { placement, file } = unit;
  const text = placement.unit.elf.sections.find(({ name }) => name === '.text');
  const own = hunks.filter(({ address }) =>
    placement.unit.functions.some((part) => {
      const base = placement.sections.get(part.section.index);
      return base !== undefined && base + part.offset === address;
    }),
  );
  for (const { name, address, size } of own) {
    const frame =
      shipped.frames.get(address) === size ? 'the unwind entry agrees' : 'no unwind entry of its own';
    resolver.prove(
      name,
      'object-bytes',
      `0x${address.toString(16)}, ${size} bytes: the code of ${file} (.text of ${text?.size ?? 0} bytes) ` +
        `is in the object ${placement.isUnique ? 'once, ' : ''}at 0x${placement.textAddress.toString(16)}; ${frame}`,
      address,
    );
  }
}
