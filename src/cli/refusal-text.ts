// Refusals of the commands that make patches, for people and in JSON, with what helps.
import { wayOutOf, type Refusal } from '../build/index.js';

/** Reasons first, each on a line; below the last one of a kind, what helps against it. */
export function refusalLines(refusals: readonly Refusal[], indentation: string): string[] {
  const codes = [...new Set(refusals.map(({ code }) => code))];
  return codes.flatMap((code) => [
    ...refusals
      .filter((refusal) => refusal.code === code)
      .map(({ message }) => `${indentation}${code}: ${message}`),
    `${indentation}  What helps: ${wayOutOf(code)}`,
  ]);
}

export const refusalsJson = (refusals: readonly Refusal[]): object[] =>
  refusals.map((refusal) => ({ ...refusal, help: wayOutOf(refusal.code) }));
