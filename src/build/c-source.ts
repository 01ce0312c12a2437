// Finds functions in C source text with tree-sitter, tolerant of macros that no grammar knows.
import { createRequire } from 'node:module';
import path from 'node:path';
import { Language, Parser, type Node } from 'web-tree-sitter';

export interface SourceFunction {
  readonly name: string;
  /** Offsets of the whole definition in the text, UTF-16 units. */
  readonly start: number;
  readonly end: number;
  /** Offset of the opening brace. */
  readonly body: number;
  /** Line of `start`, from 1. */
  readonly line: number;
}

export interface SourceText {
  readonly text: string;
  readonly functions: readonly SourceFunction[];
}

let parser: Promise<Parser> | undefined;

async function createParser(): Promise<Parser> {
  await Parser.init();
  const grammar = path.join(
    path.dirname(createRequire(import.meta.url).resolve('tree-sitter-c/package.json')),
    'tree-sitter-c.wasm',
  );
  const created = new Parser();
  created.setLanguage(await Language.load(grammar));
  return created;
}

/** Words of the Linux kernel between type and name of a function, which the grammar takes for the name. */
const attributes =
  /\b(?:__(?:init|exit|meminit|net_init|net_exit|cpuidle|sched|weak|visible|must_check|ref|cold|pure)|noinline_for_stack|noinstr|notrace)\b/g;

/** `text` with macros of the Linux kernel as the grammar knows functions; all offsets stay. */
function withoutMacros(text: string): string {
  return text
    .replace(attributes, (word) => ' '.repeat(word.length))
    .replace(
      /^(COMPAT_)?SYSCALL_DEFINE\d\s*\(\s*(\w+)\s*([,)])/gm,
      (whole, compat: string | undefined, name: string, next: string) =>
        `long ${systemCall(name, compat !== undefined)}(${next === ')' ? 'void)' : ''}`.padEnd(whole.length),
    );
}

const systemCall = (name: string, isCompat: boolean): string => `${isCompat ? 'compat_' : ''}sys_${name}`;

/**
 * All function definitions of `text`, those inside preprocessor conditionals included. What SYSCALL_DEFINE defines is
 * called sys_NAME.
 */
export async function parseSource(text: string): Promise<SourceText> {
  parser ??= createParser();
  const tree = (await parser).parse(withoutMacros(text));
  const functions: SourceFunction[] = [];
  for (const node of tree?.rootNode.descendantsOfType('function_definition') ?? []) {
    const name = declaredName(node.childForFieldName('declarator'));
    const body = node.childForFieldName('body')?.startIndex;
    if (name === undefined || body === undefined) continue;
    functions.push({
      name,
      start: node.startIndex,
      end: node.endIndex,
      body,
      line: node.startPosition.row + 1,
    });
  }
  tree?.delete();
  return { text, functions };
}

/** Named structures, unions and enumerations that `text` defines: `struct NAME` → its tokens. */
export async function typeDefinitions(text: string): Promise<Map<string, string>> {
  parser ??= createParser();
  const tree = (await parser).parse(withoutMacros(text));
  const types = new Map<string, string>();
  const kinds = ['struct_specifier', 'union_specifier', 'enum_specifier'];
  for (const node of tree?.rootNode.descendantsOfType(kinds) ?? []) {
    const [name, body] = [node.childForFieldName('name'), node.childForFieldName('body')];
    if (!name || !body) continue;
    const key = `${node.type.replace('_specifier', '')} ${name.text}`;
    const tokens = tokensOf(text.slice(body.startIndex, body.endIndex)).join(' ');
    types.set(key, `${types.get(key) ?? ''}${tokens}`);
  }
  tree?.delete();
  return types;
}

function declaredName(declarator: Node | null): string | undefined {
  for (let node = declarator; node !== null; node = node.childForFieldName('declarator')) {
    if (node.type === 'identifier') return node.text;
  }
  return undefined;
}

const tokenPattern =
  /\/\*[\s\S]*?\*\/|\/\/(?:\\\n|[^\n])*|"(?:\\[\s\S]|[^"\\])*"|'(?:\\[\s\S]|[^'\\])*'|[A-Za-z_]\w*|\.?\d(?:[eEpP][+-]|[\w.])*|\n[ \t]*#|[^\s]/g;

/** The tokens of C text without comments and white space; equal tokens mean equal code but for __LINE__. */
export function tokensOf(text: string): string[] {
  return (text.match(tokenPattern) ?? []).filter(
    (token) => !token.startsWith('/*') && !token.startsWith('//'),
  );
}

/** Whether the braces from `body` close exactly at `end`: then the range is right even where a macro broke the grammar. */
export function bracesClose(text: string, body: number, end: number): boolean {
  const tokens = tokensOf(text.slice(body, end));
  let depth = 0;
  for (const [index, token] of tokens.entries()) {
    if (token === '{') depth++;
    if (token === '}') depth--;
    if (depth === 0) return index === tokens.length - 1;
  }
  return false;
}
