// Patch + addresses → the bytes of the image, relocated.
import { advance, hex, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { relocationName, relocationType } from '../elf/index.js';
import {
  constantSections,
  jumpCrossesPage,
  jumpOffset,
  jumpSize,
  loadedSections,
  type Hunk,
  type Patch,
  type PatchRelocation,
  type PatchSection,
  type PatchSectionName,
  type PatchSymbol,
} from '../patchfile/index.js';
import {
  encodeHeader,
  headerSize,
  type ImageDescription,
  type ImageHeader,
  type ImageHunk,
} from './header.js';

const pageSize = 4096;

/** Where an image lives and how the rest of the process looks from there. */
export interface Placement {
  readonly image: RemoteAddress;
  readonly bias: RemoteAddress;
  /** Address of a symbol of another object of the process; undefined when the process has none. */
  readonly foreign: (name: string, version: string) => RemoteAddress | undefined;
}

export interface Image {
  readonly header: ImageHeader;
  /** Header, code and constants, for the read-and-execute part; then data, for the read-and-write part. */
  readonly constant: Uint8Array;
  readonly data: Uint8Array;
}

export interface Layout {
  readonly offsets: ReadonlyMap<PatchSectionName, number>;
  readonly executableSize: number;
  readonly size: number;
}

/** Offsets of the sections in the image; independent of addresses, so the size is known before a gap is chosen. */
export function layOutImage(patch: Patch): Layout {
  const replaced = patch.hunks.filter((hunk) => hunk.kind === 'replace');
  let position = headerSize(replaced.length, describe(patch));
  const offsets = new Map<PatchSectionName, number>();
  const place = (constant: boolean): void => {
    for (const name of loadedSections) {
      const section = patch.sections.find((candidate) => candidate.name === name);
      if (!section || constantSections.has(name) !== constant) continue;
      position = roundUp(position, section.alignment);
      offsets.set(name, position);
      position += section.size;
    }
  };
  place(true);
  const executableSize = roundUp(position, pageSize);
  position = executableSize;
  place(false);
  return { offsets, executableSize, size: roundUp(position, pageSize) };
}

function roundUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

function describe({ metadata, hunks }: Patch): ImageDescription {
  const {
    name,
    description,
    package: packageName,
    packageVersion,
    fixedVersion,
    objectName,
    cves,
  } = metadata;
  return {
    name,
    description,
    package: packageName,
    packageVersion,
    fixedVersion,
    objectName,
    cves: [...cves],
    hunks: hunks.filter((hunk) => hunk.kind === 'replace').map((hunk) => hunk.name),
  };
}

/** The relocated image. Throws SYMBOL_UNRESOLVED, JUMP_CROSSES_PAGE, or NO_GAP when an address is out of reach from the placement. */
export function buildImage(
  patch: Patch,
  layout: Layout,
  placement: Placement,
  release: { readonly patchset: string; readonly sha256: string },
): Image {
  const addresses = patch.symbols.map((symbol) => () => symbolAddress(symbol, layout, placement));
  const hunks = patch.hunks
    .filter((hunk) => hunk.kind === 'replace')
    .map((hunk) => makeHunk(hunk, patch, layout, placement));
  const ehFrame = patch.sections.find((section) => section.name === '.eh_frame');
  const header: ImageHeader = {
    state: 'prepared',
    address: placement.image,
    size: layout.size,
    executableSize: layout.executableSize,
    level: patch.metadata.level,
    bias: placement.bias,
    buildId: patch.buildId,
    sha256: release.sha256,
    patchset: release.patchset,
    ehFrame: { offset: layout.offsets.get('.eh_frame') ?? 0, size: ehFrame?.size ?? 0 },
    hunks,
    description: describe(patch),
  };
  const bytes = Buffer.alloc(layout.size);
  bytes.set(encodeHeader(header));
  for (const section of patch.sections) copySection(bytes, section, layout);
  for (const relocation of patch.relocations) relocate(bytes, relocation, layout, placement, addresses);
  return {
    header,
    constant: bytes.subarray(0, layout.executableSize),
    data: bytes.subarray(layout.executableSize),
  };
}

function copySection(image: Buffer, section: PatchSection, layout: Layout): void {
  const offset = layout.offsets.get(section.name);
  if (offset !== undefined && section.name !== '.bss') image.set(section.bytes, offset);
}

function symbolAddress(symbol: PatchSymbol, layout: Layout, placement: Placement): RemoteAddress {
  switch (symbol.where) {
    case 'object':
      return advance(placement.bias, symbol.value);
    case 'patch':
      return advance(placement.image, (layout.offsets.get(symbol.section) ?? 0) + symbol.value);
    case 'foreign': {
      const address = placement.foreign(symbol.name, symbol.version);
      if (address !== undefined) return address;
      const name = symbol.version === '' ? symbol.name : `${symbol.name}@${symbol.version}`;
      throw new KcareError('SYMBOL_UNRESOLVED', `the process has no usable symbol ${name}`, { symbol: name });
    }
  }
}

function relocate(
  image: Buffer,
  relocation: PatchRelocation,
  layout: Layout,
  placement: Placement,
  addresses: readonly (() => RemoteAddress)[],
): void {
  const offset = (layout.offsets.get(relocation.section) ?? 0) + relocation.offset;
  const target = (addresses[relocation.symbol]?.() ?? 0n) + BigInt(relocation.addend);
  const relative = target - advance(placement.image, offset);
  switch (relocation.type) {
    case relocationType.abs64:
      image.writeBigUInt64LE(BigInt.asUintN(64, target), offset);
      return;
    case relocationType.pc64:
      image.writeBigInt64LE(relative, offset);
      return;
    case relocationType.pc32:
    case relocationType.plt32:
      image.writeInt32LE(asDisplacement(relative, relocationName(relocation.type)), offset);
  }
}

function asDisplacement(value: bigint, what: string): number {
  if (value !== BigInt.asIntN(32, value)) {
    throw new KcareError('NO_GAP', `${what} cannot reach ${hex(value < 0n ? -value : value)} bytes`);
  }
  return Number(value);
}

/** R1: refuses a jump that cannot be written at once. */
function makeHunk(hunk: Hunk, patch: Patch, layout: Layout, placement: Placement): ImageHunk {
  if (jumpCrossesPage(hunk)) {
    throw new KcareError('JUMP_CROSSES_PAGE', `patch: the jump of ${hunk.name} would cross a page boundary`, {
      function: hunk.name,
      address: hunk.address,
    });
  }
  const entry = jumpOffset(hunk);
  const start = advance(placement.bias, hunk.address);
  const jump = advance(start, entry);
  const symbol = patch.symbols.find(
    (candidate) => candidate.where === 'patch' && candidate.isFunction && candidate.name === hunk.replacement,
  );
  if (!symbol) throw new KcareError('PATCH_MALFORMED', `patch: hunk ${hunk.name} has no new function`);
  const replacement = symbolAddress(symbol, layout, placement);
  const written = Buffer.alloc(jumpSize);
  written.writeUInt8(0xe9, 0);
  written.writeInt32LE(asDisplacement(replacement - advance(jump, jumpSize), 'the jump'), 1);
  const saved = hunk.original.slice(entry, entry + jumpSize);
  return { name: hunk.name, function: start, functionSize: hunk.size, jump, replacement, saved, written };
}
