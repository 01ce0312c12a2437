// Patch → bytes of a relocatable ELF file.
import { fileType, sectionFlag, sectionType } from '../elf/index.js';
import {
  formatVersions,
  hookKinds,
  hookRecordSize,
  hookSection,
  hunkFlags,
  hunkKinds,
  hunkRecordSize,
  hunkSection,
  metadataSection,
  objectSection,
  originalSection,
  targetNote,
} from './format.js';
import { writeElf, type SectionToWrite, type SymbolToWrite } from './elf-writer.js';
import { checkPatch } from './check.js';
import type { Patch, PatchSection, PatchSymbol } from './model.js';

const { alloc, execute, write } = sectionFlag;

/**
 * The file for `patch`; equal patches give equal bytes. Symbols are written in their order, locals before globals
 * as ELF demands, so that reading gives them back sorted that way. Throws PATCH_MALFORMED when the parts of the
 * patch do not fit together.
 */
export function writePatch(patch: Patch): Uint8Array {
  checkPatch(patch);
  const order = patch.symbols
    .map((_, index) => index)
    .sort((left, right) => binding(patch.symbols[left]) - binding(patch.symbols[right]) || left - right);
  const newIndex = new Map(order.map((oldIndex, index) => [oldIndex, index]));
  const symbols = order.flatMap((index) => patch.symbols[index] ?? []);
  const originals = Buffer.concat(patch.hunks.map((hunk) => hunk.original));
  const sections: SectionToWrite[] = [
    {
      name: targetNote.section,
      type: sectionType.note,
      flags: 0,
      alignment: 4,
      bytes: encodeNote(Buffer.from(patch.buildId, 'hex'), patch.hooks?.length ?? 0),
    },
    ...patch.sections.map(loadedSection),
    {
      name: objectSection,
      type: sectionType.nobits,
      flags: 0,
      alignment: 1,
      bytes: none,
      size: patch.objectSize,
    },
    {
      name: hunkSection,
      type: sectionType.progbits,
      flags: 0,
      alignment: 8,
      entrySize: hunkRecordSize,
      bytes: encodeHunks(patch, symbols),
    },
    ...(patch.hooks?.length
      ? [
          {
            name: hookSection,
            type: sectionType.progbits,
            flags: 0,
            alignment: 4,
            entrySize: hookRecordSize,
            bytes: encodeHooks(patch, symbols),
          },
        ]
      : []),
    { name: originalSection, type: sectionType.progbits, flags: 0, alignment: 1, bytes: originals },
    {
      name: metadataSection,
      type: sectionType.progbits,
      flags: 0,
      alignment: 1,
      bytes: Buffer.from(`${JSON.stringify(patch.metadata, null, 1)}\n`),
    },
  ];
  return writeElf(
    fileType.relocatable,
    sections,
    symbols.map(encodeSymbol),
    patch.relocations.map((relocation) => ({ ...relocation, symbol: newIndex.get(relocation.symbol) ?? 0 })),
  );
}

const none = new Uint8Array(0);

function binding(symbol: PatchSymbol | undefined): number {
  return symbol?.where === 'foreign' ? 1 : 0;
}

function loadedSection(section: PatchSection): SectionToWrite {
  const flags = {
    '.text': alloc | execute,
    '.rodata': alloc,
    '.eh_frame': alloc,
    '.kcare.got': alloc,
    '.data': alloc | write,
    '.bss': alloc | write,
  }[section.name];
  return {
    name: section.name,
    type: section.name === '.bss' ? sectionType.nobits : sectionType.progbits,
    flags,
    alignment: section.alignment,
    bytes: section.name === '.bss' ? none : section.bytes,
    size: section.size,
  };
}

function encodeNote(buildId: Uint8Array, hooks: number): Uint8Array {
  const name = Buffer.from(`${targetNote.name}\0\0\0`);
  const padded = Math.ceil(buildId.length / 4) * 4;
  const note = Buffer.alloc(12 + 8 + padded);
  note.writeUInt32LE(targetNote.name.length + 1, 0);
  note.writeUInt32LE(buildId.length, 4);
  note.writeUInt32LE(hooks > 0 ? formatVersions.withHooks : formatVersions.plain, 8);
  note.set(name, 12);
  note.set(buildId, 20);
  return note;
}

function encodeSymbol(symbol: PatchSymbol): SymbolToWrite {
  if (symbol.where === 'foreign') {
    const name = symbol.version === '' ? symbol.name : `${symbol.name}@${symbol.version}`;
    return { name, section: undefined, value: 0, size: 0, type: 0, binding: 1 };
  }
  return {
    name: symbol.name,
    section: symbol.where === 'object' ? objectSection : symbol.section,
    value: symbol.value,
    size: symbol.size,
    type: symbol.isFunction ? 2 : 1,
    binding: 0,
  };
}

function encodeHunks(patch: Patch, symbols: readonly PatchSymbol[]): Uint8Array {
  const table = Buffer.alloc(patch.hunks.length * hunkRecordSize);
  let bytesOffset = 0;
  patch.hunks.forEach((hunk, index) => {
    const at = index * hunkRecordSize;
    const original = symbols.findIndex(
      (symbol) => symbol.where === 'object' && symbol.name === hunk.name && symbol.value === hunk.address,
    );
    const replacement = symbols.findIndex(
      (symbol) => symbol.where === 'patch' && symbol.isFunction && symbol.name === hunk.replacement,
    );
    table.writeBigUInt64LE(BigInt(hunk.address), at);
    table.writeUInt32LE(hunk.size, at + 8);
    table.writeUInt32LE(hunkKinds.indexOf(hunk.kind) + 1, at + 12);
    table.writeUInt32LE(original + 1, at + 16);
    table.writeUInt32LE(replacement + 1, at + 20);
    table.writeUInt32LE(bytesOffset, at + 24);
    table.writeUInt32LE(hunk.independent ? hunkFlags.independent : 0, at + 28);
    bytesOffset += hunk.original.length;
  });
  return table;
}

function encodeHooks({ hooks = [] }: Patch, symbols: readonly PatchSymbol[]): Uint8Array {
  const table = Buffer.alloc(hooks.length * hookRecordSize);
  const indexOf = (name: string): number =>
    symbols.findIndex((symbol) => symbol.where === 'patch' && symbol.isFunction && symbol.name === name) + 1;
  hooks.forEach((hook, index) => {
    const at = index * hookRecordSize;
    table.writeUInt32LE(hookKinds.indexOf(hook.kind) + 1, at);
    table.writeUInt32LE(indexOf(hook.function), at + 4);
    table.writeUInt32LE(hook.undo === undefined ? 0 : indexOf(hook.undo), at + 8);
  });
  return table;
}
