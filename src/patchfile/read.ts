// Bytes of a patch file → Patch, or a clear error; the bytes may be anything.
import { KcareError } from '../base/errors.js';
import {
  boolean,
  integer,
  list,
  oneOf,
  optional,
  record,
  ShapeError,
  text,
  textThat,
} from '../base/shapes.js';
import {
  ByteReader,
  fileType,
  findSection,
  parseElf,
  readNotes,
  readRelocations,
  readSymbols,
  sectionType,
  type ElfFile,
  type ElfSection,
  type ElfSymbol,
} from '../elf/index.js';
import { checkPatch } from './check.js';
import {
  formatVersions,
  hookKinds,
  hookRecordSize,
  hookSection,
  hunkFlags,
  hunkKinds,
  hunkRecordSize,
  hunkSection,
  limits,
  loadedSections,
  metadataSection,
  objectSection,
  originalSection,
  targetNote,
} from './format.js';
import type {
  Hunk,
  OperandProof,
  Patch,
  PatchHook,
  PatchMetadata,
  PatchRelocation,
  PatchRelocationType,
  PatchSection,
  PatchSectionName,
  PatchSymbol,
} from './model.js';

const shortText = text(10_000);
const objectAddress = integer(0, 0x7fffffff);

const metadataShape = record({
  name: shortText,
  level: integer(1, 0xffffffff),
  description: shortText,
  cves: list(record({ id: shortText, description: shortText, score: shortText, url: shortText }), 10_000),
  package: shortText,
  packageVersion: shortText,
  fixedVersion: shortText,
  objectName: shortText,
  architecture: oneOf('x86-64'),
  date: shortText,
  builder: shortText,
  proof: list(
    record({
      symbol: shortText,
      how: oneOf('object-bytes', 'symbol-table', 'operand', 'plt', 'got'),
      detail: shortText,
      address: optional<number | undefined>(objectAddress, undefined),
      operand: optional<OperandProof | undefined>(
        record({ at: objectAddress, distance: integer(-0x7fffffff, 0x7fffffff) }),
        undefined,
      ),
    }),
    Infinity,
  ),
  units: optional(
    list(
      record({
        file: shortText,
        address: objectAddress,
        size: integer(1, 0x7fffffff),
        isUnique: boolean,
        masked: text(),
        sha256: textThat((value) => /^[0-9a-f]{64}$/.test(value), 'a SHA-256'),
      }),
      Infinity,
    ),
    [],
  ),
});

/**
 * Reads and checks a patch file. The result shares memory with `bytes`. Throws PATCH_MALFORMED, PATCH_TOO_NEW,
 * ELF_MALFORMED or ELF_UNSUPPORTED; never anything else, whatever the bytes are.
 */
export function readPatch(bytes: Uint8Array): Patch {
  if (bytes.length > limits.fileSize) throw malformed(`file of ${bytes.length} bytes`);
  const elf = parseElf(bytes);
  if (elf.type !== fileType.relocatable) throw malformed('not a relocatable file');
  const { buildId, version } = readTarget(elf);
  if (version === formatVersions.plain && findSection(elf, hookSection)) throw malformed('hooks in format 1');
  const symbols = readSymbols(elf, '.symtab');
  const patchSymbols = symbols.slice(1).map((symbol) => toPatchSymbol(elf, symbol));
  const patch: Patch = {
    buildId,
    objectSize: required(elf, objectSection).size,
    metadata: readMetadata(required(elf, metadataSection).bytes),
    hunks: readHunks(elf, symbols),
    ...(version === formatVersions.withHooks && { hooks: readHooks(elf, symbols) }),
    sections: loadedSections.flatMap((name) => toPatchSection(findSection(elf, name))),
    symbols: patchSymbols,
    relocations: readAllRelocations(elf),
  };
  checkPatch(patch);
  return patch;
}

function malformed(message: string): KcareError {
  return new KcareError('PATCH_MALFORMED', `patch file: ${message}`);
}

function required(elf: ElfFile, name: string): ElfSection {
  const section = findSection(elf, name);
  if (!section) throw malformed(`section ${name} is missing`);
  return section;
}

function readTarget(elf: ElfFile): { readonly buildId: string; readonly version: number } {
  const note = readNotes(required(elf, targetNote.section).bytes).find(
    ({ name }) => name === targetNote.name,
  );
  if (!note) throw malformed('no note names the target');
  if (note.type > formatVersions.withHooks)
    throw new KcareError('PATCH_TOO_NEW', `patch file has format ${note.type}`);
  return { buildId: Buffer.from(note.description).toString('hex'), version: note.type };
}

function readMetadata(bytes: Uint8Array): PatchMetadata {
  if (bytes.length > limits.metadataSize) throw malformed(`metadata of ${bytes.length} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    throw malformed(`metadata is not JSON (${error instanceof Error ? error.message : 'unknown'})`);
  }
  try {
    return metadataShape(json);
  } catch (error) {
    if (error instanceof ShapeError) throw malformed(`metadata: ${error.message}`);
    throw error;
  }
}

function isLoaded(name: string): name is PatchSectionName {
  return (loadedSections as readonly string[]).includes(name);
}

function toPatchSection(section: ElfSection | undefined): PatchSection[] {
  if (!section || !isLoaded(section.name)) return [];
  const { name, bytes, size, alignment } = section;
  const isEmptyOnDisk = section.type === sectionType.nobits;
  if (isEmptyOnDisk !== (name === '.bss')) throw malformed(`section ${name} has type ${section.type}`);
  return [{ name, bytes, size, alignment }];
}

function toPatchSymbol(elf: ElfFile, symbol: ElfSymbol): PatchSymbol {
  const { value, size } = symbol;
  const isFunction = symbol.type === 'function';
  if (symbol.sectionIndex === 0) {
    const [name = '', version = ''] = symbol.name.split('@', 2);
    return { name, where: 'foreign', version };
  }
  const section = elf.sections[symbol.sectionIndex];
  if (section?.name === objectSection) return { name: symbol.name, where: 'object', value, size, isFunction };
  if (section && isLoaded(section.name)) {
    return { name: symbol.name, where: 'patch', section: section.name, value, size, isFunction };
  }
  throw malformed(`symbol ${symbol.name} lies in no section that is loaded`);
}

function readHunks(elf: ElfFile, symbols: readonly ElfSymbol[]): Hunk[] {
  const table = required(elf, hunkSection).bytes;
  const originals = required(elf, originalSection).bytes;
  if (table.length % hunkRecordSize !== 0) throw malformed('the hunk table is cut off');
  const reader = new ByteReader(table, 'hunk table', 'PATCH_MALFORMED');
  return Array.from({ length: table.length / hunkRecordSize }, () => {
    const address = reader.u64();
    const size = reader.u32();
    const kind = hunkKinds[reader.u32() - 1];
    const original = symbols[reader.u32()];
    const replacement = symbols[reader.u32()];
    const bytes = new ByteReader(originals, 'original bytes', 'PATCH_MALFORMED', reader.u32()).slice(size);
    const isIndependent = (reader.u32() & hunkFlags.independent) !== 0;
    if (!kind || !original || !replacement) throw malformed('a hunk has an impossible kind or symbol');
    const hunk = {
      kind,
      name: original.name,
      address,
      size,
      original: bytes,
      ...(isIndependent && { independent: true }),
    };
    return kind === 'guard' && replacement.index === 0 ? hunk : { ...hunk, replacement: replacement.name };
  });
}

function readHooks(elf: ElfFile, symbols: readonly ElfSymbol[]): PatchHook[] {
  const table = required(elf, hookSection).bytes;
  if (table.length === 0 || table.length % hookRecordSize !== 0) throw malformed('the hook table is cut off');
  const reader = new ByteReader(table, 'hook table', 'PATCH_MALFORMED');
  return Array.from({ length: table.length / hookRecordSize }, () => {
    const kind = hookKinds[reader.u32() - 1];
    const [symbol, undo] = [symbols[reader.u32()], reader.u32()];
    reader.u32();
    const undoing = symbols[undo];
    if (!kind || !symbol || !undoing) throw malformed('a hook has an impossible kind or symbol');
    return { kind, function: symbol.name, ...(undo !== 0 && { undo: undoing.name }) };
  });
}

function readAllRelocations(elf: ElfFile): PatchRelocation[] {
  return elf.sections.flatMap((section) => {
    if (section.type !== sectionType.rela) return [];
    const target = elf.sections[section.info]?.name ?? '';
    if (!isLoaded(target)) throw malformed(`relocations for section ${target}`);
    return readRelocations(section).map(({ offset, type, symbolIndex, addend }) => ({
      section: target,
      offset,
      // checkPatch refuses all but the allowed types.
      type: type as PatchRelocationType,
      symbol: symbolIndex - 1,
      addend,
    }));
  });
}
