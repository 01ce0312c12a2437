// What must hold between the parts of a patch, whether it was just built or read from a file.
import { KcareError } from '../base/errors.js';
import { relocationType } from '../elf/index.js';
import { allowedRelocations, limits, loadedSections } from './format.js';
import { jumpSize } from './jump.js';
import type { Hunk, Patch, PatchHook, PatchRelocation, PatchSection, PatchSymbol } from './model.js';

function fail(message: string): never {
  throw new KcareError('PATCH_MALFORMED', `patch: ${message}`);
}

/** Throws PATCH_MALFORMED with the first thing that does not fit. */
export function checkPatch(patch: Patch): void {
  if (!/^(?:[0-9a-f]{2}){4,32}$/.test(patch.buildId))
    fail('the build-id is not 4 to 32 bytes of lower-case hexadecimal');
  if (!Number.isSafeInteger(patch.objectSize) || patch.objectSize <= 0 || patch.objectSize > 0x7fffffff) {
    fail(`impossible object size ${patch.objectSize}`);
  }
  const sections = new Map<string, PatchSection>();
  for (const section of patch.sections) {
    checkSection(section);
    if (sections.has(section.name)) fail(`two sections ${section.name}`);
    sections.set(section.name, section);
  }
  const total = patch.sections.reduce((sum, section) => sum + section.size, 0);
  if (total > limits.imageSize) fail(`image of ${total} bytes`);
  for (const symbol of patch.symbols) checkSymbol(symbol, sections, patch.objectSize);
  for (const relocation of patch.relocations) checkRelocation(relocation, sections, patch.symbols);
  checkHunks(patch);
  checkHooks(patch, patch.hooks ?? []);
}

function checkSection(section: PatchSection): void {
  const { name, size, alignment, bytes } = section;
  if (!loadedSections.includes(name)) fail(`unknown section ${name}`);
  if (!Number.isSafeInteger(size) || size < 0) fail(`section ${name} of ${size} bytes`);
  if (![1, 2, 4, 8, 16, 32, 64].includes(alignment)) fail(`section ${name} is aligned to ${alignment}`);
  if (name !== '.bss' && bytes.length !== size)
    fail(`section ${name} has ${bytes.length} bytes instead of ${size}`);
}

function checkSymbol(
  symbol: PatchSymbol,
  sections: ReadonlyMap<string, PatchSection>,
  objectSize: number,
): void {
  if (symbol.where === 'foreign') {
    if (symbol.name === '') fail('a foreign symbol has no name');
    return;
  }
  const { value, size, name } = symbol;
  const end = symbol.where === 'object' ? objectSize : sections.get(symbol.section)?.size;
  if (end === undefined) fail(`symbol ${name} is in a section that is not there`);
  if (
    !Number.isSafeInteger(value) ||
    !Number.isSafeInteger(size) ||
    value < 0 ||
    size < 0 ||
    value + size > end
  ) {
    fail(`symbol ${name} lies outside its section`);
  }
}

function checkRelocation(
  { section, offset, type, symbol, addend }: PatchRelocation,
  sections: ReadonlyMap<string, PatchSection>,
  symbols: readonly PatchSymbol[],
): void {
  if (!allowedRelocations.has(type)) fail(`relocation type ${type}`);
  const width = type === 2 || type === 4 ? 4 : 8;
  const target = sections.get(section);
  if (!target || section === '.bss' || offset < 0 || offset + width > target.size) {
    fail(`relocation at ${section}+${offset} lies outside`);
  }
  const referred = symbols[symbol];
  if (!referred) fail(`relocation with symbol ${symbol}`);
  if (type === relocationType.copy && (referred.where !== 'object' || referred.size < width))
    fail(`relocation copies ${referred.name}, which is no word of the object`);
  if (!Number.isSafeInteger(addend) || Math.abs(addend) > 0x7fffffff)
    fail(`relocation with addend ${addend}`);
}

function checkHunks(patch: Patch): void {
  if (patch.hunks.length === 0 || patch.hunks.length > limits.hunks) fail(`${patch.hunks.length} hunks`);
  const ordered = [...patch.hunks].sort((left, right) => left.address - right.address);
  ordered.forEach((hunk, index) => {
    checkHunk(hunk, patch);
    const next = ordered[index + 1];
    if (next && hunk.address + hunk.size > next.address) fail(`hunks ${hunk.name} and ${next.name} overlap`);
  });
}

function checkHunk(hunk: Hunk, patch: Patch): void {
  const { name, address, size, original } = hunk;
  if (!Number.isSafeInteger(address) || address < 0 || size <= 0 || address + size > patch.objectSize) {
    fail(`hunk ${name} lies outside the object`);
  }
  if (original.length !== size) fail(`hunk ${name} has ${original.length} original bytes instead of ${size}`);
  const known = patch.symbols.some(
    (symbol) => symbol.where === 'object' && symbol.name === name && symbol.value === address,
  );
  if (!known) fail(`hunk ${name} has no symbol`);
  if (hunk.kind === 'guard') {
    if (hunk.replacement !== undefined || hunk.independent) fail(`guard ${name} is more than a guard`);
    return;
  }
  if (size < jumpSize) fail(`hunk ${name} is shorter than a jump`);
  const replacement = patch.symbols.find(
    (symbol) => symbol.where === 'patch' && symbol.isFunction && symbol.name === hunk.replacement,
  );
  if (replacement?.where !== 'patch' || replacement.section !== '.text')
    fail(`hunk ${name} has no new function`);
}

function checkHooks(patch: Patch, hooks: readonly PatchHook[]): void {
  if (hooks.length > limits.hooks) fail(`${hooks.length} hooks`);
  const isOwnCode = (name: string): boolean => {
    const symbol = patch.symbols.find(
      (each) => each.where === 'patch' && each.isFunction && each.name === name,
    );
    return symbol?.where === 'patch' && symbol.section === '.text';
  };
  hooks.forEach(({ kind, function: name, undo }, index) => {
    if (!isOwnCode(name) || (undo !== undefined && !isOwnCode(undo)))
      fail(`hook ${name} is no function of the patch`);
    if (undo !== undefined && kind !== 'update') fail(`hook ${name} is undone, but is no update`);
    const isTwice = hooks.findIndex((each) => each.kind === kind && each.function === name) !== index;
    if (isTwice) fail(`hook ${name} appears twice`);
  });
}
