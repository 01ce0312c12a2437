// A patch as if it were mapped behind the object it is for, so that one address space names everything in both.
import { loadedSections, type Patch, type PatchSymbol } from '../patchfile/index.js';
import { relocationType } from '../elf/index.js';

/** Where a symbol of the patch lies, by its index; 0 where only a process knows it. */
export interface PlacedPatch {
  readonly patch: Patch;
  /** Relocated bytes of the sections that hold any, with their addresses. */
  readonly sections: ReadonlyMap<string, { readonly address: number; readonly bytes: Buffer }>;
  addressOf(symbol: PatchSymbol): number;
}

const pageSize = 0x1000;

/** Needs no process: symbols of other objects get addresses that nothing else has. */
export function placePatch(patch: Patch): PlacedPatch {
  const sections = new Map<string, { address: number; bytes: Buffer }>();
  let next = (Math.ceil(patch.objectSize / pageSize) + 1) * pageSize;
  for (const name of loadedSections) {
    const section = patch.sections.find((candidate) => candidate.name === name);
    if (!section) continue;
    // Nothing is read from .bss, but its addresses count.
    sections.set(name, { address: next, bytes: Buffer.from(section.bytes) });
    next += (Math.ceil(section.size / pageSize) + 1) * pageSize;
  }
  const foreign = new Map<PatchSymbol, number>();
  for (const symbol of patch.symbols) {
    if (symbol.where !== 'foreign') continue;
    foreign.set(symbol, next);
    next += 16;
  }
  const addressOf = (symbol: PatchSymbol): number => {
    if (symbol.where === 'foreign') return foreign.get(symbol) ?? 0;
    if (symbol.where === 'object') return symbol.value;
    return (sections.get(symbol.section)?.address ?? 0) + symbol.value;
  };
  for (const { section, offset, type, symbol, addend } of patch.relocations) {
    const [place, referred] = [sections.get(section), patch.symbols[symbol]];
    // The word that COPY takes is known to the process only.
    if (!place || !referred || type === relocationType.copy) continue;
    const value = addressOf(referred) + addend;
    if (type === relocationType.abs64) place.bytes.writeBigInt64LE(BigInt(value), offset);
    else if (type === relocationType.pc64)
      place.bytes.writeBigInt64LE(BigInt(value - place.address - offset), offset);
    else place.bytes.writeInt32LE((value - place.address - offset) | 0, offset);
  }
  return { patch, sections, addressOf };
}
