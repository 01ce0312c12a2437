// Macros in C source text, and the refusal of fixes whose functions would mean something else under the old ones.
import { tokensOf } from './c-source.js';
import type { Refusals } from './result.js';
import type { EditRequest } from './source-edit.js';

export interface SourceMacro {
  readonly name: string;
  /** Offsets of the whole directive in the text, without the line end. */
  readonly start: number;
  readonly end: number;
}

/** All definitions of macros in `text`, in their order; one for each branch of a preprocessor conditional. */
export function macrosOf(text: string): SourceMacro[] {
  const directive = /^[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)(?:\\\r?\n|[^\n])*/gm;
  return [...text.matchAll(directive)].map((match) => ({
    name: match[1] ?? '',
    start: match.index,
    end: match.index + match[0].length,
  }));
}

/** What each macro of `texts` stands for, as tokens: all its definitions, in their order. */
export function macroBodies(texts: readonly string[]): Map<string, string> {
  const bodies = new Map<string, string>();
  for (const text of texts) {
    for (const { name, start, end } of macrosOf(text)) {
      const definition = tokensOf(text.slice(start, end).replaceAll('\\\n', ' ')).slice(1).join(' ');
      bodies.set(name, `${bodies.get(name) ?? ''}\n${definition}`);
    }
  }
  return bodies;
}

export interface MacroContext {
  /** The edited file first, then the headers of the tree that it includes. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  /** What the fix takes from the fixed version, name by name. */
  readonly taken: ReadonlyMap<string, string>;
}

/**
 * Functions of the fixed version are compiled with the macros of the running one. Refuses those that use a macro
 * which the versions define differently, and those that such a macro stands for.
 */
export function checkMacros(
  request: EditRequest,
  { before, after, taken }: MacroContext,
  refusals: Refusals,
): void {
  const [old, fresh] = [macroBodies(before), macroBodies(after)];
  // What only the fixed version has, the compiler asks for.
  const changed = [...old].filter(
    ([name, body]) => fresh.get(name) !== body && !request.macros.includes(name),
  );
  if (changed.length === 0) return;
  for (const [name, text] of taken) {
    const used = new Set(tokensOf(text));
    for (const word of used) {
      for (const inner of tokensOf(fresh.get(word) ?? old.get(word) ?? '')) used.add(inner);
    }
    for (const [macro, body] of changed) {
      const stands = [body, fresh.get(macro) ?? ''].some((one) => tokensOf(one).slice(1).includes(name));
      if (!used.has(macro) && !stands) continue;
      const how = fresh.has(macro)
        ? 'is defined differently in the fixed version'
        : 'is gone in the fixed version';
      const why = used.has(macro)
        ? `${name} uses the macro ${macro}, which`
        : `The macro ${macro}, which names ${name},`;
      refusals.add('CHANGED_MACRO', `${why} ${how}`, name);
    }
  }
}
