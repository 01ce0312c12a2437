// How the quickstart talks: numbered steps, quoted output, and checks that end it.

let steps = 0;

export function step(title: string): void {
  steps += 1;
  process.stdout.write(`\n${steps}. ${title}\n`);
}

export function say(text: string): void {
  process.stdout.write(text === '' ? '\n' : `   ${text}\n`);
}

/** Output of another program. */
export function quote(text: string): void {
  for (const line of text.trimEnd().split('\n')) process.stdout.write(`   | ${line}\n`);
}

/** Ends the quickstart with an error when `holds` is false. */
export function check(holds: boolean, expectation: string): void {
  if (!holds) throw new Error(`this was expected, and is not so: ${expectation}.`);
}
