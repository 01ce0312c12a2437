// The header at the start of every image in a target: the only record of what is applied there.
import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib';
import { remoteAddress, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { list, record, text, type Shaped } from '../base/shapes.js';
import { ByteReader } from '../elf/index.js';
import {
  decodeHook,
  encodeHooks,
  hookCode,
  hookEntrySize,
  hookLayout,
  mostHooks,
  type HookPlace,
  type ImageHook,
} from './hooks.js';
import { registrationCodeSize, registrationLayout, type RegistrationPlace } from './registration.js';

/**
 * Little-endian layout. The state word is written by the commit; all else is constant once the image is mapped.
 *
 *       0  magic "KCAREIMG"                 8
 *       8  format version                   4
 *      12  state                            4
 *      16  size of all this                 4
 *      20  number of hunks                  4
 *      24  address of the image             8
 *      32  size of the image                8
 *      40  size of its executable part      4
 *      44  level of the patch               4
 *      48  load bias of the object          8
 *      56  length of the build-id           4
 *      60  size of the metadata             4
 *      64  build-id                        32
 *      96  SHA-256 of the patch file       32
 *     128  name of the patchset            32
 *     160  offset of .eh_frame              4
 *     164  size of .eh_frame                4
 *     168  CRC-32 with state and CRC zero   4
 *     172  flags                            4
 *     176  offset of the registration code   4
 *     180  offset of the registration record 4
 *     184  offset of the code for hooks      4
 *     188  offset of the record of hooks     4
 *     192  hunks, 48 bytes each:
 *            0  address of the old function 8
 *            8  address of the jump         8
 *           16  address of the new function 8
 *           24  size of the old function    4
 *           28  number of bytes written     4
 *           32  saved original bytes        8
 *           40  bytes written               8
 *       …  hooks, 16 bytes each: hooks.ts
 *       …  metadata: deflated JSON
 *
 * Flag 1: the process may keep addresses of the image (escape.ts).
 */
export const headerLayout = {
  magic: Buffer.from('KCAREIMG'),
  version: 2,
  /** Of images with hooks: who does not know them must not remove the image. */
  versionWithHooks: 3,
  stateOffset: 12,
  sizeOffset: 16,
  fixedSize: 192,
  hunkSize: 48,
  checksumOffset: 168,
  flagsOffset: 172,
} as const;

const flags = { escapes: 1 } as const;

export const imageStates = { prepared: 1, committing: 2, active: 3, removing: 4, removed: 5 } as const;
export type ImageState = keyof typeof imageStates;

export interface ImageHunk {
  readonly name: string;
  readonly function: RemoteAddress;
  readonly functionSize: number;
  readonly jump: RemoteAddress;
  readonly replacement: RemoteAddress;
  /** Original bytes at `jump`, and what the commit writes there; equal lengths, at most 8. */
  readonly saved: Uint8Array;
  readonly written: Uint8Array;
}

const shortText = text(10_000);
const descriptionShape = record({
  name: shortText,
  description: shortText,
  package: shortText,
  packageVersion: shortText,
  fixedVersion: shortText,
  objectName: shortText,
  cves: list(record({ id: shortText, description: shortText, score: shortText, url: shortText }), 10_000),
  /** Names of the hunks, and behind them those of the hooks. */
  hunks: list(shortText, 10_000),
});

/** What people want to know of an image; travels in the target so that it needs no database. */
export type ImageDescription = Shaped<typeof descriptionShape>;

export interface ImageHeader {
  readonly state: ImageState;
  readonly address: RemoteAddress;
  /** Bytes, whole pages; the first `executableSize` of them are read-and-execute, the rest read-and-write. */
  readonly size: number;
  readonly executableSize: number;
  readonly level: number;
  readonly bias: RemoteAddress;
  readonly buildId: string;
  /** SHA-256 of the patch file, hexadecimal. */
  readonly sha256: string;
  readonly patchset: string;
  readonly ehFrame: { readonly offset: number; readonly size: number };
  /** Undefined when there are no unwind tables. */
  readonly registration?: RegistrationPlace | undefined;
  /** Addresses of the image may outlive a call of its functions: strings, variables, callbacks. */
  readonly escapes: boolean;
  readonly hunks: readonly ImageHunk[];
  readonly hooks: readonly ImageHook[];
  /** Undefined when there are no hooks. */
  readonly hookPlace?: HookPlace | undefined;
  readonly description: ImageDescription;
}

export const maximumHeaderSize = 1024 * 1024;

/** The bytes of a header. Deterministic. */
export function encodeHeader(
  header: Omit<ImageHeader, 'hooks'> & Partial<Pick<ImageHeader, 'hooks'>>,
): Uint8Array {
  const metadata = encodeDescription(header.description);
  const hunksEnd = headerLayout.fixedSize + header.hunks.length * headerLayout.hunkSize;
  const hooks = encodeHooks(header.hooks ?? [], header.address);
  const bytes = Buffer.alloc(hunksEnd + hooks.length + metadata.length);
  headerLayout.magic.copy(bytes);
  bytes.writeUInt32LE(header.hookPlace ? headerLayout.versionWithHooks : headerLayout.version, 8);
  bytes.writeUInt32LE(imageStates[header.state], headerLayout.stateOffset);
  bytes.writeUInt32LE(bytes.length, headerLayout.sizeOffset);
  bytes.writeUInt32LE(header.hunks.length, 20);
  bytes.writeBigUInt64LE(header.address, 24);
  bytes.writeBigUInt64LE(BigInt(header.size), 32);
  bytes.writeUInt32LE(header.executableSize, 40);
  bytes.writeUInt32LE(header.level, 44);
  bytes.writeBigUInt64LE(header.bias, 48);
  const buildId = Buffer.from(header.buildId, 'hex');
  bytes.writeUInt32LE(buildId.length, 56);
  bytes.writeUInt32LE(metadata.length, 60);
  bytes.set(buildId.subarray(0, 32), 64);
  bytes.set(Buffer.from(header.sha256, 'hex').subarray(0, 32), 96);
  bytes.set(Buffer.from(header.patchset, 'latin1').subarray(0, 31), 128);
  bytes.writeUInt32LE(header.ehFrame.offset, 160);
  bytes.writeUInt32LE(header.ehFrame.size, 164);
  bytes.writeUInt32LE(header.registration?.code ?? 0, 176);
  bytes.writeUInt32LE(header.registration?.record ?? 0, 180);
  bytes.writeUInt32LE(header.hookPlace?.code ?? 0, 184);
  bytes.writeUInt32LE(header.hookPlace?.record ?? 0, 188);
  bytes.writeUInt32LE(header.escapes ? flags.escapes : 0, headerLayout.flagsOffset);
  header.hunks.forEach((hunk, index) => {
    const at = headerLayout.fixedSize + index * headerLayout.hunkSize;
    bytes.writeBigUInt64LE(hunk.function, at);
    bytes.writeBigUInt64LE(hunk.jump, at + 8);
    bytes.writeBigUInt64LE(hunk.replacement, at + 16);
    bytes.writeUInt32LE(hunk.functionSize, at + 24);
    bytes.writeUInt32LE(hunk.written.length, at + 28);
    bytes.set(hunk.saved, at + 32);
    bytes.set(hunk.written, at + 40);
  });
  bytes.set(hooks, hunksEnd);
  bytes.set(metadata, hunksEnd + hooks.length);
  bytes.writeUInt32LE(checksum(bytes), headerLayout.checksumOffset);
  return bytes;
}

/** Bytes that a header with this many hunks and hooks and this description takes. */
export function headerSize(hunkCount: number, hookCount: number, description: ImageDescription): number {
  const tables = hunkCount * headerLayout.hunkSize + hookCount * hookEntrySize;
  return headerLayout.fixedSize + tables + encodeDescription(description).length;
}

/** The size that an encoded header says it has. */
export function headerBytes(image: Uint8Array): number {
  return new ByteReader(image, 'image header', 'HEADER_MALFORMED', headerLayout.sizeOffset).u32();
}

/** The same patch goes into many processes. */
const encodedDescriptions = new WeakMap<ImageDescription, Buffer>();

function encodeDescription(description: ImageDescription): Buffer {
  const known = encodedDescriptions.get(description);
  if (known) return known;
  const encoded = deflateRawSync(JSON.stringify(description), { level: 9 });
  encodedDescriptions.set(description, encoded);
  return encoded;
}

function checksum(header: Uint8Array): number {
  const copy = Buffer.from(header);
  copy.writeUInt32LE(0, headerLayout.stateOffset);
  copy.writeUInt32LE(0, headerLayout.checksumOffset);
  return crc32(copy);
}

/**
 * Decodes a header found at `address`, of which `read` gives bytes. Undefined when there is no magic; throws
 * HEADER_MALFORMED when there is, but the rest is damaged: the target may have written there what it likes.
 */
export function decodeHeader(
  address: RemoteAddress,
  read: (offset: number, length: number) => Uint8Array,
): ImageHeader | undefined {
  const fixed = new ByteReader(read(0, headerLayout.fixedSize), 'image header', 'HEADER_MALFORMED');
  if (!headerLayout.magic.equals(fixed.slice(8))) return undefined;
  const version = fixed.u32();
  if (version !== headerLayout.version && version !== headerLayout.versionWithHooks) {
    throw fixed.fail('unknown version');
  }
  const stateNumber = fixed.u32();
  const state = (Object.keys(imageStates) as ImageState[]).find((name) => imageStates[name] === stateNumber);
  const totalSize = fixed.u32();
  const hunkCount = fixed.u32();
  const ownAddress = remoteAddress(fixed.bigU64());
  const size = fixed.u64();
  const executableSize = fixed.u32();
  const level = fixed.u32();
  const bias = remoteAddress(fixed.bigU64());
  const buildIdLength = fixed.u32();
  const metadataSize = fixed.u32();
  const hunksEnd = headerLayout.fixedSize + hunkCount * headerLayout.hunkSize;
  if (state === undefined || ownAddress !== address) throw fixed.fail('impossible state or address');
  const hooksEnd = totalSize - metadataSize;
  const hookCount = (hooksEnd - hunksEnd) / hookEntrySize;
  if (
    !Number.isInteger(hookCount) ||
    hookCount < 0 ||
    hookCount > mostHooks ||
    totalSize > maximumHeaderSize ||
    buildIdLength > 32
  ) {
    throw fixed.fail('impossible sizes');
  }
  if (
    executableSize > size ||
    totalSize > executableSize ||
    size % 4096 !== 0 ||
    executableSize % 4096 !== 0
  ) {
    throw fixed.fail('impossible sizes');
  }
  const bytes = read(0, totalSize);
  const reader = new ByteReader(bytes, 'image header', 'HEADER_MALFORMED', 64);
  const buildId = Buffer.from(reader.slice(32).subarray(0, buildIdLength)).toString('hex');
  const sha256 = Buffer.from(reader.slice(32)).toString('hex');
  const patchset = Buffer.from(reader.slice(32))
    .toString('latin1')
    .replace(/\0[^]*$/, '');
  const ehFrame = { offset: reader.u32(), size: reader.u32() };
  if (ehFrame.offset + ehFrame.size > executableSize) throw reader.fail('unwind tables lie outside');
  if (reader.u32() !== checksum(bytes)) throw reader.fail('wrong checksum');
  const escapes = (reader.u32() & flags.escapes) !== 0;
  reader.position = 176;
  const registration = decodeRegistration(reader, executableSize, size);
  const hookPlace = decodeHookPlace(reader, executableSize, size);
  const hasHooks = hookPlace !== undefined;
  if (hasHooks !== (version === headerLayout.versionWithHooks) || hasHooks !== hookCount > 0) {
    throw reader.fail('hooks do not fit the version');
  }
  const description = decodeDescription(bytes.subarray(hooksEnd), reader);
  reader.position = headerLayout.fixedSize;
  const hunks = Array.from({ length: hunkCount }, (_, index) =>
    decodeHunk(reader, description.hunks[index] ?? ''),
  );
  const hooks = Array.from({ length: hookCount }, (_, index) =>
    decodeHook(reader, ownAddress, executableSize, description.hunks[hunkCount + index] ?? ''),
  );
  return {
    state,
    address,
    size,
    executableSize,
    level,
    bias,
    buildId,
    sha256,
    patchset,
    ehFrame,
    registration,
    escapes,
    hunks,
    hooks,
    hookPlace,
    description,
  };
}

function decodeHookPlace(reader: ByteReader, executableSize: number, size: number): HookPlace | undefined {
  const code = reader.u32();
  const record = reader.u32();
  if (code === 0 && record === 0) return undefined;
  const isInside =
    code + hookCode.length <= executableSize &&
    record >= executableSize &&
    record + hookLayout.recordSize <= size;
  if (!isInside || record % 16 !== 0 || code % 16 !== 0) throw reader.fail('impossible place of the hooks');
  return { code, record };
}

function decodeRegistration(
  reader: ByteReader,
  executableSize: number,
  size: number,
): RegistrationPlace | undefined {
  const code = reader.u32();
  const record = reader.u32();
  if (code === 0 && record === 0) return undefined;
  const isInside =
    code + registrationCodeSize <= executableSize &&
    record >= executableSize &&
    record + registrationLayout.recordSize <= size;
  if (!isInside || record % 16 !== 0) throw reader.fail('impossible place of the registration');
  return { code, record };
}

function decodeHunk(reader: ByteReader, name: string): ImageHunk {
  const functionAddress = remoteAddress(reader.bigU64());
  const jump = remoteAddress(reader.bigU64());
  const replacement = remoteAddress(reader.bigU64());
  const functionSize = reader.u32();
  const length = reader.u32();
  if (length === 0 || length > 8) throw reader.fail('impossible hunk');
  const saved = reader.slice(8).subarray(0, length);
  const written = reader.slice(8).subarray(0, length);
  return { name, function: functionAddress, functionSize, jump, replacement, saved, written };
}

/** Most processes of a host have the same patch. */
let latestDescription: { readonly bytes: Uint8Array; readonly description: ImageDescription } | undefined;

function decodeDescription(bytes: Uint8Array, reader: ByteReader): ImageDescription {
  if (latestDescription && Buffer.compare(latestDescription.bytes, bytes) === 0)
    return latestDescription.description;
  try {
    const json = inflateRawSync(bytes, { maxOutputLength: maximumHeaderSize }).toString('utf8');
    const description = descriptionShape(JSON.parse(json));
    latestDescription = { bytes: Uint8Array.from(bytes), description };
    return description;
  } catch (error) {
    if (error instanceof KcareError) throw error;
    throw reader.fail('damaged description');
  }
}
