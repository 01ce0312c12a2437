// The patch itself: no relocation leads out of what it may refer to, and every new function can be unwound.
import { parseEhFrame, relocationName, relocationType } from '../elf/index.js';
import { KcareError } from '../base/errors.js';
import type { Patch, PatchRelocation, PatchSymbol } from '../patchfile/index.js';
import type { Evidence } from './evidence.js';
import { at, Findings, type Finding } from './findings.js';
import { placePatch } from './placed-patch.js';

/** A field that counts from its own end has up to 4 bytes of its instruction behind it. */
const [leastBehind, mostBehind] = [4, 8];

export function verifyRelocations(patch: Patch, evidence: Evidence): Finding[] {
  const findings = new Findings('relocations');
  for (const relocation of patch.relocations) {
    const symbol = patch.symbols[relocation.symbol];
    const problem = symbol && problemOf(relocation, symbol, patch, evidence);
    if (problem === undefined) continue;
    const { section, offset, type } = relocation;
    findings.add(`${section}+${at(offset)}`, 'refuted', `${relocationName(type)} ${problem}`);
  }
  if (findings.all.length === 0) {
    const count = `all ${patch.relocations.length}`;
    findings.add(count, 'proved', 'lead into the patch, into the object, or to a symbol of the process');
  }
  return findings.all;
}

function problemOf(
  { section, type, addend }: PatchRelocation,
  symbol: PatchSymbol,
  patch: Patch,
  evidence: Evidence,
): string | undefined {
  if (type === relocationType.copy) {
    const isSlot = symbol.where === 'object' && evidence.shipped.threadSlots.has(symbol.value);
    return isSlot ? undefined : `copies ${symbol.name}, which is no thread-local slot of the object`;
  }
  if (symbol.where === 'foreign') {
    return type === relocationType.abs64 && addend === 0
      ? undefined
      : `needs ${symbol.name} of another object within its reach`;
  }
  const target = symbol.value + addend;
  const isDistance = type === relocationType.pc32 || type === relocationType.plt32;
  // An entry of a table of distances counts from the beginning of the table.
  const isEntry = isDistance && section === '.rodata';
  const table = isEntry ? (patch.sections.find(({ name }) => name === section)?.size ?? 0) : 0;
  const [least, most] = isDistance && section === '.text' ? [leastBehind, mostBehind] : [-table, 0];
  const [start, end] =
    symbol.where === 'object'
      ? (evidence.segmentAround(symbol.value) ?? [0, patch.objectSize])
      : [0, patch.sections.find(({ name }) => name === symbol.section)?.size ?? 0];
  if (target + most >= start && target + least <= end) return undefined;
  return `leads ${at(Math.abs(addend))} bytes away from ${symbol.name}, out of its part of the ${symbol.where}`;
}

export function verifyUnwinding(patch: Patch): Finding[] {
  const findings = new Findings('unwinding');
  const placed = placePatch(patch);
  const table = placed.sections.get('.eh_frame');
  if (!table) {
    findings.add('.eh_frame', 'open', 'the patch carries no unwind table');
    return findings.all;
  }
  const entries = new Map<number, number>();
  try {
    for (const { start, length } of parseEhFrame(table.bytes, table.address)) entries.set(start, length);
  } catch (error) {
    if (!(error instanceof KcareError)) throw error;
    findings.add('.eh_frame', 'refuted', error.message);
    return findings.all;
  }
  for (const symbol of patch.symbols) {
    if (symbol.where !== 'patch' || !symbol.isFunction || symbol.section !== '.text') continue;
    if (symbol.name.endsWith('.stub')) continue;
    findings.check(
      symbol.name,
      entries.get(placed.addressOf(symbol)) === symbol.size,
      'has an unwind entry of its own length',
      'has no unwind entry of its own length',
    );
  }
  return findings.all;
}
