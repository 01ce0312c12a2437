// What the comparison of two compiled objects of the kernel hands to the making of a module.

/** Where a symbol lives in the running kernel. */
export interface KernelSymbol {
  /** In the kernel, where its compiler numbered it in another way than ours. */
  readonly name?: string;
  /** Which one of those of this name in its object, counted from 1 by address; 0: there is only one. */
  readonly position: number;
  /** Modules may refer to it. */
  readonly isExported: boolean;
  /** `vmlinux` or the name of a module. */
  readonly owner: string;
}

/** One translation unit with functions to be replaced. */
export interface ChangedUnit {
  /** As in the tree of the kernel: `kernel/sys.c`. */
  readonly source: string;
  /** Path of the object of the original source, compiled with -ffunction-sections -fdata-sections. */
  readonly original: string;
  /** The same of the changed source. */
  readonly changed: string;
  /** The module that the code belongs to; undefined: the kernel itself. */
  readonly module?: string;
  /** Functions to be replaced; the running kernel has them. */
  readonly changedFunctions: readonly string[];
  /** Functions that only the changed object has, and that changed ones need. */
  readonly newFunctions: readonly string[];
  /** Data that only the changed object has. */
  readonly newData: readonly string[];
  /** Each symbol outside of the carried code that it refers to, by its name in the changed object. */
  readonly symbols: ReadonlyMap<string, KernelSymbol>;
}
