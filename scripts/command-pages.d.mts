// Types of command-pages.mjs, for tests.
export interface DescribedOption {
  readonly flags: string;
  readonly long?: string;
  readonly short?: string;
  readonly description: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
}
export interface DescribedProgram {
  readonly name: string;
  readonly help: string;
  readonly options: readonly DescribedOption[];
  readonly arguments: readonly string[];
  readonly commands: readonly DescribedProgram[];
}
export const wrappers: readonly string[];
export function describeProgram(name: string): DescribedProgram;
export function manualSection(name: string): 1 | 8;
export function manualPage(program: DescribedProgram, version: string): string;
export function bashCompletion(program: DescribedProgram): string;
export function zshCompletion(program: DescribedProgram): string;
export function fishCompletion(program: DescribedProgram): string;
