// What a build gives back: a patch, or all reasons why there is none.
import type { Patch } from '../patchfile/index.js';
import type { RefusalCode } from './refusal-table.js';

export interface Refusal {
  readonly code: RefusalCode;
  readonly message: string;
  readonly function?: string;
}

export interface BuildResult {
  readonly outcome: 'built' | 'refused' | 'unchanged';
  /** Path of the patch file; absent unless built. */
  readonly file?: string;
  readonly patch?: Patch;
  readonly refusals: readonly Refusal[];
  /** The shipped object that the patch fits, and the root of its unpacked package. */
  readonly object: { readonly path: string; readonly root: string };
  readonly versions: { readonly runs: string; readonly fixed: string; readonly substituted: boolean };
}

/** Collects refusals, so that a user sees all of them at once. */
export class Refusals {
  private readonly byText = new Map<string, Refusal>();

  add(code: RefusalCode, message: string, functionName?: string): void {
    const refusal = { code, message, ...(functionName !== undefined && { function: functionName }) };
    this.byText.set(JSON.stringify(refusal), refusal);
  }

  get all(): Refusal[] {
    return [...this.byText.values()];
  }
}
