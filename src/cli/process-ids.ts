// Process ids as words of a command line.
import { InvalidArgumentError } from 'commander';

export function processId(text: string): number {
  if (!/^[1-9]\d{0,9}$/.test(text)) throw new InvalidArgumentError('It is not a process id.');
  return Number(text);
}

/** One id, or several with commas between them; added to `previous`. */
export function processIds(text: string, previous: readonly number[] | undefined): number[] {
  if (!/^[1-9]\d{0,9}(,[1-9]\d{0,9})*$/.test(text))
    throw new InvalidArgumentError(
      'It is not a list of process ids; what is none stands before --pid, or behind --.',
    );
  return [...(previous ?? []), ...text.split(',').map(Number)];
}
