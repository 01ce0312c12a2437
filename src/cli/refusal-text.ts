// Refusals of the commands that make patches, for people and in JSON, with what helps.
import { wayOutOf, type Refusal } from '../build/index.js';
import { kernelWayOut, type KernelRefusal } from '../kbuild/index.js';

/** Reasons first, each on a line; below the last one of a kind, what helps against it. */
export const refusalLines = (refusals: readonly Refusal[], indentation: string): string[] =>
  linesWith(wayOutOf, refusals, indentation);

export const kernelRefusalLines = (refusals: readonly KernelRefusal[], indentation: string): string[] =>
  linesWith(kernelWayOut, refusals, indentation);

function linesWith<Code extends string>(
  helpAgainst: (code: Code) => string,
  refusals: readonly Refusal<Code>[],
  indentation: string,
): string[] {
  const codes = [...new Set(refusals.map(({ code }) => code))];
  return codes.flatMap((code) => [
    ...refusals
      .filter((refusal) => refusal.code === code)
      .map(({ message }) => `${indentation}${code}: ${message}`),
    `${indentation}  What helps: ${helpAgainst(code)}`,
  ]);
}

export const refusalsJson = (refusals: readonly Refusal[]): object[] =>
  refusals.map((refusal) => ({ ...refusal, help: wayOutOf(refusal.code) }));

export const kernelRefusalsJson = (refusals: readonly KernelRefusal[]): object[] =>
  refusals.map((refusal) => ({ ...refusal, help: kernelWayOut(refusal.code) }));
