// The typed model of a patch file; docs/patch-format.md draws the bytes.

/** One fixed vulnerability, as shown by --lib-patch-info. Missing facts are empty strings. */
export interface PatchedCve {
  readonly id: string;
  readonly description: string;
  /** CVSS base score as a decimal, "" when unknown. */
  readonly score: string;
  readonly url: string;
}

export interface PatchMetadata {
  readonly name: string;
  /** Cumulative level: level N+1 contains N. Positive integer. */
  readonly level: number;
  readonly description: string;
  readonly cves: readonly PatchedCve[];
  readonly package: string;
  readonly packageVersion: string;
  readonly fixedVersion: string;
  /** File name of the object, e.g. "libcrypto.so.3". */
  readonly objectName: string;
  readonly architecture: 'x86-64';
  /** ISO 8601 date from the recipe or SOURCE_DATE_EPOCH, never the clock: builds are reproducible. */
  readonly date: string;
  readonly builder: string;
  /** How every original function and symbol was found; free of machine paths. */
  readonly proof: readonly SymbolProof[];
  /** The code of whole units that was found in the object. */
  readonly units: readonly UnitProof[];
}

export interface SymbolProof {
  readonly symbol: string;
  readonly how: 'object-bytes' | 'symbol-table' | 'operand' | 'plt' | 'got';
  readonly detail: string;
  /** Virtual address of it in the object; absent for what is found by an offset in a thread-local block. */
  readonly address?: number | undefined;
  /** An instruction of the shipped code that gives the address away; absent where none was needed. */
  readonly operand?: OperandProof | undefined;
}

export interface OperandProof {
  /** Virtual address of a 4-byte field, which counts from its own end. */
  readonly at: number;
  /** From where the field leads to the symbol, bytes; 0 where it leads right to it. */
  readonly distance: number;
}

/** One stretch of code that the compiler made for a unit, and the linker put into the object. */
export interface UnitProof {
  /** Source file, relative to the tree. */
  readonly file: string;
  readonly address: number;
  readonly size: number;
  /** Nothing else in the object's .text has these bytes; not so where the linker's map told the place. */
  readonly isUnique: boolean;
  /** What the linker may have changed: base64 of LEB128 numbers, in turn bytes that count and bytes that do not. */
  readonly masked: string;
  /** SHA-256 of the bytes that the compiler made, with zeros where they do not count. Hexadecimal. */
  readonly sha256: string;
}

/** `replace`: a jump is written at the entry. `guard`: only no thread may be inside (cold parts, clones). */
export type HunkKind = 'replace' | 'guard';

export interface Hunk {
  readonly kind: HunkKind;
  /** Name of the original function in the object. */
  readonly name: string;
  /** Virtual address in the object (before the load bias), and size in bytes of the original function. */
  readonly address: number;
  readonly size: number;
  /** The original bytes of the whole function. */
  readonly original: Uint8Array;
  /** Symbol of the new function; absent for guards. */
  readonly replacement?: string;
  /** Threads inside the old function may finish in it: only the bytes under the jump are guarded. Never on guards. */
  readonly independent?: boolean;
}

/**
 * When a function of the patch is run in the process: `before-apply` may veto by a result other than 0; `update` is run
 * within the commit, while all threads stand, and brings data into the form that the new code wants.
 */
export type HookKind = 'before-apply' | 'update' | 'after-apply' | 'before-unload' | 'after-unload';

export interface PatchHook {
  readonly kind: HookKind;
  /** Symbol of a function of the patch. */
  readonly function: string;
  /** For updates: the function by which an unload takes it back; without one the patch stays for good. */
  readonly undo?: string | undefined;
}

export type PatchSectionName = '.text' | '.rodata' | '.data' | '.bss' | '.eh_frame' | '.kcare.got';

/** Contents to be mapped. `.bss` has `size` but no bytes. Text, rodata, eh_frame and got become read-and-execute, the rest read-and-write. */
export interface PatchSection {
  readonly name: PatchSectionName;
  readonly bytes: Uint8Array;
  readonly size: number;
  readonly alignment: number;
}

/**
 * Where a symbol lives:
 * - `patch`: in a section of this patch, `value` is the offset there;
 * - `object`: in the target object, `value` is the virtual address before the load bias;
 * - `foreign`: in some other object of the process, found by name (and version, when not "") at run time.
 */
export type PatchSymbol =
  | {
      readonly name: string;
      readonly where: 'patch';
      readonly section: PatchSectionName;
      readonly value: number;
      readonly size: number;
      readonly isFunction: boolean;
    }
  | {
      readonly name: string;
      readonly where: 'object';
      readonly value: number;
      readonly size: number;
      readonly isFunction: boolean;
    }
  | { readonly name: string; readonly where: 'foreign'; readonly version: string };

/**
 * The only relocations a finished patch may hold: R_X86_64_64 (1), R_X86_64_PC32 (2), R_X86_64_PLT32 (4),
 * R_X86_64_COPY (5), R_X86_64_PC64 (24). COPY takes the 8-byte word that the process has at the symbol, which is in the
 * object, and adds the addend: module ids and thread-pointer offsets are known to the process only.
 */
export type PatchRelocationType = 1 | 2 | 4 | 5 | 24;

export interface PatchRelocation {
  readonly section: PatchSectionName;
  readonly offset: number;
  readonly type: PatchRelocationType;
  /** Index into {@link Patch.symbols}. */
  readonly symbol: number;
  readonly addend: number;
}

export interface Patch {
  /** Lower-case hexadecimal build-id of the object that this patch fits. */
  readonly buildId: string;
  /** End of the object's memory image: the highest virtual address of its PT_LOAD segments, before the load bias. */
  readonly objectSize: number;
  readonly metadata: PatchMetadata;
  readonly hunks: readonly Hunk[];
  /** In the order in which they run; at most 16. */
  readonly hooks?: readonly PatchHook[];
  readonly sections: readonly PatchSection[];
  readonly symbols: readonly PatchSymbol[];
  readonly relocations: readonly PatchRelocation[];
}
