// Names and record layouts of the patch file, shared by writer and reader; docs/patch-format.md explains them.
import type { HookKind, HunkKind, PatchSectionName } from './model.js';

/** Versions of the format; a reader refuses files with a higher one. Only patches with hooks need the second. */
export const formatVersions = { plain: 1, withHooks: 2 } as const;

export const fileExtension = '.kpatch';

/**
 * Note with the build-id of the object: name "kcare", type = format version.
 */
export const targetNote = { section: '.note.kcare.target', name: 'kcare' } as const;

/** An empty NOBITS section of the object's size; symbols of the object are defined in it, so tools can show them. */
export const objectSection = '.kcare.object';
export const metadataSection = '.kcare.meta';
/** Original bytes of the replaced functions, one behind the other. */
export const originalSection = '.kcare.original';

/**
 * One record of the hunk table, 32 bytes, little-endian:
 *
 *     0         8      12     16             20                24             28
 *     +---------+------+------+--------------+-----------------+--------------+----------+
 *     | address | size | kind | original sym | replacement sym | bytes offset | flags    |
 *     +---------+------+------+--------------+-----------------+--------------+----------+
 *
 * Symbols are indexes into .symtab; the replacement is 0 for guards; the bytes offset points into .kcare.original.
 * Flags: 1 independent; the other bits are reserved.
 */
export const hunkSection = '.kcare.hunks';
export const hunkRecordSize = 32;

export const hunkFlags = { independent: 1 } as const;

export const hunkKinds: readonly HunkKind[] = ['replace', 'guard'];

/**
 * One record of the hook table, 16 bytes, little-endian: kind (from 1, in the order of {@link hookKinds}), symbol of the
 * function, symbol of the one that undoes it or 0, reserved.
 */
export const hookSection = '.kcare.hooks';
export const hookRecordSize = 16;

export const hookKinds: readonly HookKind[] = [
  'before-apply',
  'update',
  'after-apply',
  'before-unload',
  'after-unload',
];

export const loadedSections: readonly PatchSectionName[] = [
  '.text',
  '.rodata',
  '.eh_frame',
  '.kcare.got',
  '.data',
  '.bss',
];

/** Sections that are mapped read-and-execute; the others read-and-write. */
export const constantSections: ReadonlySet<PatchSectionName> = new Set([
  '.text',
  '.rodata',
  '.eh_frame',
  '.kcare.got',
]);

export const allowedRelocations: ReadonlySet<number> = new Set([1, 2, 4, 5, 24]);

/** Limits that no honest patch reaches; they bound what a hostile one can make us do. */
export const limits = {
  fileSize: 64 * 1024 * 1024,
  hunks: 10_000,
  hooks: 16,
  imageSize: 32 * 1024 * 1024,
  metadataSize: 4 * 1024 * 1024,
} as const;
