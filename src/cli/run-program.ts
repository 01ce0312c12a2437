// What the programs have in common: mistakes and failures become a message and an exit code.
import { CommanderError } from 'commander';
import { asKcareError, exitCodes, KcareError } from '../base/errors.js';
import { nameProgram, printError, printJson } from './print.js';

/** Runs `action` for the program `name`; prints what goes wrong, as JSON when asked by `--json`. Returns the exit code. */
export async function exitCodeOf(name: string, action: () => Promise<number>): Promise<number> {
  nameProgram(name);
  try {
    return await action();
  } catch (thrown) {
    // Commander has printed the help, the version or the mistake already.
    if (thrown instanceof CommanderError) {
      if (thrown.exitCode === 0) return exitCodes.done;
      if (asksForJson()) printJson({ error: new KcareError('USAGE', thrown.message) });
      return exitCodes.usage;
    }
    const error = asKcareError(thrown);
    printError(name, error, asksForJson());
    return error.exitCode;
  }
}

function asksForJson(): boolean {
  return process.argv.includes('--json');
}
