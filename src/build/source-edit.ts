// Puts the fixed version's functions into the running version's source, without moving any other line.
import { bracesClose, parseSource, tokensOf, type SourceFunction, type SourceText } from './c-source.js';
import type { Refusals } from './result.js';
import type { ChangedSignature } from './signatures.js';
import { macrosOf } from './source-macros.js';

export interface EditRequest {
  readonly file: string;
  /** The source file that is compiled, where `file` is only included by it. */
  readonly includedBy?: string | undefined;
  readonly functions: readonly string[];
  readonly adds: readonly string[];
  readonly macros: readonly string[];
  /** C sources with hooks and update functions, put behind the file. */
  readonly updates?: readonly string[];
}

export interface EditContext {
  /** Functions whose new heads count in this file. */
  readonly signatures: readonly ChangedSignature[];
  /** Headers of the fixed version, in which macros are looked for that its file does not define. */
  readonly headers: readonly string[];
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
  { signatures, headers }: EditContext = { signatures: [], headers: [] },
): Promise<string | undefined> {
  const [oldSource, newSource] = [await parseSource(oldText), await parseSource(newText)];
  const [replacements, additions] = editMacros(oldText, newText, request, headers, refusals);
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
      const isKnown = signatures.some((signature) => signature.name === name);
      const replacement = fresh && replaceFunction(oldText, old, newText, fresh, isKnown, refusals);
      if (replacement) replacements.push(replacement);
    });
  }
  if (replacements.length === 0) return undefined;
  const first = Math.min(...replacements.map(({ start }) => start));
  for (const text of additions) replacements.push({ start: first, end: first, text: `${text}\n` });
  for (const name of request.adds) {
    const [added, ...more] = findAll(newSource, name, `${request.file} of the fixed version`, refusals);
    // Outside of its preprocessor conditionals nobody could choose the right one.
    if (more.length > 0)
      refusals.add('SOURCE_FUNCTION', `${name} is defined several times in ${request.file}`, name);
    if (added)
      replacements.push({ start: first, end: first, text: `${newText.slice(added.start, added.end)}\n` });
  }
  const heads = signatures.filter(({ name }) => tokensOf(oldText).includes(name));
  const start = Math.min(first, ...oldSource.functions.map((one) => one.start));
  replacements.unshift(...heads.map(({ name, declaration }) => newHead(name, declaration, start)));
  return `${heads.map(hideOldHead).join('')}${applyReplacements(oldText, replacements, spelling)}`;
}

/** Until the first function, where all old declarations are, the name means something that nothing defines. */
const hideOldHead = ({ name }: ChangedSignature): string =>
  `#define ${name} ${name}_of_the_running_version\n`;

function newHead(name: string, declaration: string, start: number): Replacement {
  return { start, end: start, text: `#undef ${name}\n${declaration};` };
}

/** Replacements for macros that the file defines in both versions, and definitions of those that only the fixed one has. */
function editMacros(
  oldText: string,
  newText: string,
  { file, macros }: EditRequest,
  headers: readonly string[],
  refusals: Refusals,
): [replacements: Replacement[], additions: string[]] {
  const [replacements, additions]: [Replacement[], string[]] = [[], []];
  const definitionsIn = (text: string, name: string): { start: number; end: number; text: string }[] =>
    macrosOf(text)
      .filter((macro) => macro.name === name)
      .map(({ start, end }) => ({ start, end, text: text.slice(start, end) }));
  for (const name of macros) {
    const before = definitionsIn(oldText, name);
    const after =
      [newText, ...headers].map((text) => definitionsIn(text, name)).find((all) => all.length > 0) ?? [];
    if (after.length === 0 || (before.length > 0 && before.length !== after.length)) {
      const counts = `${before.length} times in the running version and ${after.length} times in the fixed one`;
      refusals.add('SOURCE_FUNCTION', `the macro ${name} is defined ${counts} in ${file}`, name);
      continue;
    }
    if (before.length === 0) additions.push(...after.map(({ text }) => text));
    before.forEach(({ start, end, text }, index) => {
      const fresh = after[index]?.text ?? text;
      if (fresh !== text) replacements.push({ start, end, text: fresh });
    });
  }
  return [replacements, additions];
}

/** `text`, of a file spelled `spelling`, with `edited` in the place where it includes `file`; undefined where it does not. */
export function replaceInclude(
  text: string,
  spelling: string,
  file: string,
  edited: string,
): string | undefined {
  for (const match of text.matchAll(/^[ \t]*#[ \t]*include[ \t]*[<"]([^">]+)[">].*$/gm)) {
    const [line, included = ''] = match;
    if (file !== included && !file.endsWith(`/${included}`)) continue;
    const end = match.index + line.length;
    const rest = `\n#line ${lineAt(text, end) + 1} ${JSON.stringify(spelling)}${text.slice(end)}`;
    return `#line 1 ${JSON.stringify(spelling)}\n${text.slice(0, match.index)}${edited}${rest}`;
  }
  return undefined;
}

function replaceFunction(
  oldText: string,
  before: SourceFunction,
  newText: string,
  after: SourceFunction,
  mayChangeHead: boolean,
  refusals: Refusals,
): Replacement | undefined {
  const same = (oldPart: string, newPart: string): boolean =>
    tokensOf(oldPart).join(' ') === tokensOf(newPart).join(' ');
  const text = newText.slice(after.start, after.end);
  if (same(oldText.slice(before.start, before.end), text)) return undefined;
  const isSameHead = same(oldText.slice(before.start, before.body), newText.slice(after.start, after.body));
  if (!isSameHead && !mayChangeHead) {
    const message = `the parameters or the result of ${before.name} changed, and others may call it`;
    refusals.add('CHANGED_SIGNATURE', message, before.name);
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
