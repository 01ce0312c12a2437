// Options that are given several times. One that takes all words behind it would take the argument of the command, too.

/** Adds one value to those before it. */
export const collected = (text: string, previous: readonly string[]): string[] => [...previous, text];

/** Adds one value, or several with commas between them, to those before. */
export const collectedList = (text: string, previous: readonly string[]): string[] => [
  ...previous,
  ...text.split(',').filter((value) => value !== ''),
];
