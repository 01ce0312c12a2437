// What a build gives back: a patch, or all reasons why there is none.
import type { Patch } from '../patchfile/index.js';
import type { RefusalCode } from './refusal-table.js';

export interface Refusal<Code extends string = RefusalCode> {
  readonly code: Code;
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

/** What takes refusals with codes of `Code`. */
export interface RefusalSink<Code extends string> {
  add: (code: Code, message: string, functionName?: string) => void;
}

/** Collects refusals, so that a user sees all of them at once. */
export class Refusals<Code extends string = RefusalCode> {
  private readonly byText = new Map<string, Refusal<Code>>();

  add(code: Code, message: string, functionName?: string): void {
    const refusal = { code, message, ...(functionName !== undefined && { function: functionName }) };
    this.byText.set(JSON.stringify(refusal), refusal);
  }

  get all(): Refusal<Code>[] {
    return [...this.byText.values()];
  }
}
