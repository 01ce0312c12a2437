// Writing to the terminal: results to standard output, troubles to standard error.
import type { KcareError } from '../base/errors.js';
import { visible, visibleLines } from '../base/visible.js';

export { visible };

let programName = 'kcarectl';

/** Before which name warnings of this process stand. */
export function nameProgram(name: string): void {
  programName = name;
}

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
  // To JSON, only the first 32 are control characters.
  process.stdout.write(`${visible(JSON.stringify(value))}\n`);
}

export function printWarnings(warnings: readonly string[]): void {
  for (const warning of warnings) process.stderr.write(`${programName}: warning: ${visible(warning)}\n`);
}

/** With `asJson` on standard output, where programs look for the result; else as text on standard error. */
export function printError(program: string, error: KcareError, asJson: boolean): void {
  if (asJson) printJson({ error });
  else process.stderr.write(`${program}: ${messageOf(error)}\n${error.hint}\n`);
}

/** What compilers and the like said has many lines. */
function messageOf({ code, message }: KcareError): string {
  const isOfTool = code === 'BUILD_TOOL_FAILED' || code === 'SOURCE_PATCH_REJECTED';
  return isOfTool ? visibleLines(message) : visible(message);
}
