// Patch + addresses → the bytes of the image, relocated.
import { advance, hex, remoteAddress, type RemoteAddress } from '../base/address.js';
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
import { addressesEscape } from './escape.js';
import {
  encodeHeader,
  headerSize,
  type ImageDescription,
  type ImageHeader,
  type ImageHunk,
} from './header.js';
import { hookCode, hookLayout, type HookPlace, type ImageHook } from './hooks.js';
import {
  registrationBytes,
  registrationCodeSize,
  registrationLayout,
  type RegistrationPlace,
} from './registration.js';

const pageSize = 4096;

/** Where an image lives and how the rest of the process looks from there. */
export interface Placement {
  readonly image: RemoteAddress;
  readonly bias: RemoteAddress;
  /** Address of a symbol of another object of the process; undefined when the process has none. */
  readonly foreign: (name: string, version: string) => RemoteAddress | undefined;
  /** The 8-byte word at an address of the process. */
  readonly word: (address: RemoteAddress) => bigint;
}

export interface Image {
  readonly header: ImageHeader;
  /** Header, code and constants, for the read-and-execute part; then data, for the read-and-write part. */
  readonly constant: Uint8Array;
  readonly data: Uint8Array;
}

export interface Layout {
  readonly offsets: ReadonlyMap<PatchSectionName, number>;
  readonly registration: RegistrationPlace | undefined;
  readonly hooks: HookPlace | undefined;
  readonly executableSize: number;
  readonly size: number;
}

/** The zero length that ends unwind tables, whether or not the patch brings one: unwinders read up to it. */
const tableEnd = 4;
const registrationAlignment = 16;

/** Offsets of the sections in the image; independent of addresses, so the size is known before a gap is chosen. */
export function layOutImage(patch: Patch): Layout {
  const replaced = patch.hunks.filter((hunk) => hunk.kind === 'replace');
  const hookCount = patch.hooks?.length ?? 0;
  let position = headerSize(replaced.length, hookCount, describe(patch));
  const offsets = new Map<PatchSectionName, number>();
  const place = (constant: boolean): void => {
    for (const name of loadedSections) {
      const section = patch.sections.find((candidate) => candidate.name === name);
      if (!section || constantSections.has(name) !== constant) continue;
      position = roundUp(position, section.alignment);
      offsets.set(name, position);
      position += section.size + (name === '.eh_frame' ? tableEnd : 0);
    }
  };
  place(true);
  const code = roundUp(position, registrationAlignment);
  const hasTables = patch.sections.some(({ name, size }) => name === '.eh_frame' && size > tableEnd);
  if (hasTables) position = code + registrationCodeSize;
  const runner = roundUp(position, registrationAlignment);
  if (hookCount > 0) position = runner + hookCode.length;
  const executableSize = roundUp(position, pageSize);
  position = executableSize + (hasTables ? registrationLayout.recordSize : 0);
  const hooks = hookCount > 0 ? { code: runner, record: position } : undefined;
  position += hooks ? hookLayout.recordSize : 0;
  place(false);
  const registration = hasTables ? { code, record: executableSize } : undefined;
  return { offsets, registration, hooks, executableSize, size: roundUp(position, pageSize) };
}

function roundUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** One for each patch, so that it is encoded once. */
const descriptions = new WeakMap<Patch, ImageDescription>();

function describe(patch: Patch): ImageDescription {
  const known = descriptions.get(patch);
  if (known) return known;
  const description = makeDescription(patch);
  descriptions.set(patch, description);
  return description;
}

function makeDescription({ metadata, hunks, hooks = [] }: Patch): ImageDescription {
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
    hunks: [
      ...hunks.filter((hunk) => hunk.kind === 'replace').map((hunk) => hunk.name),
      ...hooks.map((hook) => hook.function),
    ],
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
    registration: layout.registration,
    escapes: addressesEscape(patch),
    hunks,
    hooks: (patch.hooks ?? []).map((hook): ImageHook => ({
      kind: hook.kind,
      name: hook.function,
      function: addressOfFunction(hook.function, patch, layout, placement),
      undo: hook.undo === undefined ? undefined : addressOfFunction(hook.undo, patch, layout, placement),
    })),
    hookPlace: layout.hooks,
    description: describe(patch),
  };
  const bytes = Buffer.alloc(layout.size);
  bytes.set(encodeHeader(header));
  for (const section of patch.sections) copySection(bytes, section, layout);
  for (const relocation of patch.relocations) relocate(bytes, relocation, layout, placement, addresses);
  if (layout.hooks) bytes.set(hookCode, layout.hooks.code);
  if (layout.registration) bytes.set(registrationOf(header, bytes), layout.registration.code);
  return {
    header,
    constant: bytes.subarray(0, layout.executableSize),
    data: bytes.subarray(layout.executableSize),
  };
}

function registrationOf({ address, ehFrame, executableSize }: ImageHeader, image: Uint8Array): Uint8Array {
  return registrationBytes(
    image.subarray(ehFrame.offset, ehFrame.offset + ehFrame.size),
    advance(address, ehFrame.offset),
    address,
    advance(address, executableSize),
  );
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
  const symbol = addresses[relocation.symbol]?.() ?? remoteAddress(0);
  const target = symbol + BigInt(relocation.addend);
  const relative = target - advance(placement.image, offset);
  switch (relocation.type) {
    case relocationType.copy:
      image.writeBigUInt64LE(BigInt.asUintN(64, placement.word(symbol) + BigInt(relocation.addend)), offset);
      return;
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

function addressOfFunction(name: string, patch: Patch, layout: Layout, placement: Placement): RemoteAddress {
  const symbol = patch.symbols.find(
    (candidate) => candidate.where === 'patch' && candidate.isFunction && candidate.name === name,
  );
  if (!symbol) throw new KcareError('PATCH_MALFORMED', `patch: there is no new function ${name}`);
  return symbolAddress(symbol, layout, placement);
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
  const replacement = addressOfFunction(hunk.replacement ?? '', patch, layout, placement);
  const written = Buffer.alloc(jumpSize);
  written.writeUInt8(0xe9, 0);
  written.writeInt32LE(asDisplacement(replacement - advance(jump, jumpSize), 'the jump'), 1);
  const saved = hunk.original.slice(entry, entry + jumpSize);
  return { name: hunk.name, function: start, functionSize: hunk.size, jump, replacement, saved, written };
}
