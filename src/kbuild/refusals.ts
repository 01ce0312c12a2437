// Every reason why a kernel patch is refused that patches of libraries do not know: what it means, and what helps.
import { refusalTable, type RefusalCode } from '../build/refusal-table.js';
import type { Refusal } from '../build/result.js';

/** docs/building-kernel-patches.md has the same table; a test holds them together. */
export const kernelRefusalTable = {
  KERNEL_INIT: {
    meaning: 'the function or datum is only there while the kernel starts, or a module is loaded or removed',
    wayOut: 'none: restart with the fixed kernel',
  },
  KERNEL_UNPATCHABLE: {
    meaning:
      'the function has no place for the tracer (`notrace`, `noinstr`, assembler): livepatch cannot divert it',
    wayOut: 'change its callers instead',
  },
  KERNEL_STATIC_KEY: {
    meaning:
      'a static key is new, or its initial state changed; the running kernel has set its jumps already',
    wayOut: 'use an ordinary variable in the patch',
  },
  KERNEL_ABI: {
    meaning:
      'an exported function has another head, or the unit exports something more or less: modules rely on it',
    wayOut: 'keep the head, put the new behaviour into a new function',
  },
  KERNEL_HEADER: {
    meaning: 'the diff changes a file that other units include; which of them change cannot be told',
    wayOut: 'put what changes into the units themselves',
  },
  KERNEL_NOT_PROVED: {
    meaning: 'the compiled original is not, byte for byte, in the shipped kernel or module',
    wayOut: 'use the compiler of the distribution; check that the configuration builds the unit',
  },
} as const satisfies Readonly<Record<string, { readonly meaning: string; readonly wayOut: string }>>;

export type KernelRefusalCode = keyof typeof kernelRefusalTable | RefusalCode;

export type KernelRefusal = Refusal<KernelRefusalCode>;

/** What helps against a refusal, for people. */
export function kernelWayOut(code: KernelRefusalCode): string {
  const rows: Readonly<Record<string, { readonly wayOut: string }>> = {
    ...refusalTable,
    ...kernelRefusalTable,
  };
  return (rows[code]?.wayOut ?? '').replaceAll('`', '');
}
