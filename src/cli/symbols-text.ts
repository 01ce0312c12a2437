// What --lib-symbols says to people.
import type { WrittenSymbols } from '../agent/index.js';

/** The lines to print, without line ends. */
export function symbolsText({ pid, files }: WrittenSymbols): string[] {
  if (files.length === 0) return [`Process ${pid} is not patched.`];
  return [
    `The patched code of process ${pid} is described; in gdb, give:`,
    ...files.map(({ command }) => `  ${command}`),
  ];
}
