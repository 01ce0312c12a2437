// Writing to the terminal: results to standard output, troubles to standard error.
import type { KcareError } from '../base/errors.js';

// A reader that closes early (`| head`) ends nothing but the output.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

export function printLine(line: string): void {
  process.stdout.write(`${visible(line)}\n`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

export function printWarnings(warnings: readonly string[]): void {
  for (const warning of warnings) process.stderr.write(`kcarectl: warning: ${visible(warning)}\n`);
}

/** With `asJson` on standard output, where programs look for the result; else as text on standard error. */
export function printError(program: string, error: KcareError, asJson: boolean): void {
  if (asJson) printJson({ error });
  else process.stderr.write(`${program}: ${visible(error.message)}\n${error.hint}\n`);
}

/** Process names and paths are chosen by others: control characters must not reach the terminal. */
export function visible(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}]/gu,
    (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`,
  );
}
