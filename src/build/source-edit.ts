// Puts the fixed version's functions into the running version's source, without moving any other line.
import { bracesClose, parseSource, tokensOf, type SourceFunction, type SourceText } from './c-source.js';
import type { Refusals } from './result.js';

export interface EditRequest {
  readonly file: string;
  readonly functions: readonly string[];
  readonly adds: readonly string[];
}

interface Replacement {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

const lineAt = (text: string, offset: number): number => text.slice(0, offset).split('\n').length;

/** All definitions of `name`: several where preprocessor conditionals choose one of them. */
function findAll(source: SourceText, name: string, where: string, refusals: Refusals): SourceFunction[] {
  const found = source.functions.filter((candidate) => candidate.name === name);
  if (found.length === 0) refusals.add('SOURCE_FUNCTION', `${name} is not defined in ${where}`, name);
  if (found.every(({ body, end }) => bracesClose(source.text, body, end))) return found;
  refusals.add(
    'SOURCE_FUNCTION',
    `the end of ${name} cannot be told in ${where}: its macros hide braces`,
    name,
  );
  return [];
}

/**
 * The old text with the named functions taken from the new one; undefined when nothing differs but comments and
 * white space. `#line` directives keep __LINE__ and __FILE__ of every other function: `spelling` is the path as the
 * compile command spells it. Reasons against it go to `refusals`.
 */
export async function replaceFunctions(
  oldText: string,
  newText: string,
  request: EditRequest,
  spelling: string,
  refusals: Refusals,
): Promise<string | undefined> {
  const [oldSource, newSource] = [await parseSource(oldText), await parseSource(newText)];
  const replacements: Replacement[] = [];
  for (const name of request.functions) {
    const before = findAll(oldSource, name, `${request.file} of the running version`, refusals);
    const after = findAll(newSource, name, `${request.file} of the fixed version`, refusals);
    if (before.length === 0 || after.length === 0) continue;
    if (before.length !== after.length) {
      const counts = `${before.length} times in the running version and ${after.length} times in the fixed one`;
      refusals.add('SOURCE_FUNCTION', `${name} is defined ${counts} in ${request.file}`, name);
      continue;
    }
    before.forEach((old, index) => {
      const fresh = after[index];
      const replacement = fresh && replaceFunction(oldText, old, newText, fresh, refusals);
      if (replacement) replacements.push(replacement);
    });
  }
  if (replacements.length === 0) return undefined;
  const first = Math.min(...replacements.map(({ start }) => start));
  for (const name of request.adds) {
    const [added, ...more] = findAll(newSource, name, `${request.file} of the fixed version`, refusals);
    // Outside of its preprocessor conditionals nobody could choose the right one.
    if (more.length > 0)
      refusals.add('SOURCE_FUNCTION', `${name} is defined several times in ${request.file}`, name);
    if (added)
      replacements.push({ start: first, end: first, text: `${newText.slice(added.start, added.end)}\n` });
  }
  return applyReplacements(oldText, replacements, spelling);
}

function replaceFunction(
  oldText: string,
  before: SourceFunction,
  newText: string,
  after: SourceFunction,
  refusals: Refusals,
): Replacement | undefined {
  const same = (oldPart: string, newPart: string): boolean =>
    tokensOf(oldPart).join(' ') === tokensOf(newPart).join(' ');
  const text = newText.slice(after.start, after.end);
  if (same(oldText.slice(before.start, before.end), text)) return undefined;
  if (!same(oldText.slice(before.start, before.body), newText.slice(after.start, after.body))) {
    refusals.add('CHANGED_SIGNATURE', `the parameters or the result of ${before.name} changed`, before.name);
    return undefined;
  }
  return { start: before.start, end: before.end, text };
}

function applyReplacements(text: string, replacements: readonly Replacement[], spelling: string): string {
  const file = JSON.stringify(spelling);
  // Sorting is stable: added functions share one place and keep their order before the replaced one.
  const ordered = replacements
    .map((replacement, index) => ({ replacement, index }))
    .sort(
      (l, r) =>
        l.replacement.start - r.replacement.start ||
        l.replacement.end - r.replacement.end ||
        l.index - r.index,
    );
  let result = `#line 1 ${file}\n`;
  let position = 0;
  for (const { replacement } of ordered) {
    result += text.slice(position, replacement.start);
    result += `\n#line ${lineAt(text, replacement.start)} ${file}\n${replacement.text}`;
    result += `\n#line ${lineAt(text, replacement.end)} ${file}\n`;
    position = replacement.end;
  }
  return result + text.slice(position);
}
