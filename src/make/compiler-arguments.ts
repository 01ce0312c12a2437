// Reads the arguments of a GCC or Clang command: what is compiled, into what, and how to compile it again elsewhere.
// Options with a separate value: GCC manual, "Option Summary".
import path from 'node:path';

export interface CompilerArguments {
  readonly sources: readonly string[];
  /** Objects and archives given by name. */
  readonly others: readonly string[];
  /** Everything that decides what code comes out: no sources, outputs, dependency files, libraries. */
  readonly flags: readonly string[];
}

const withValue = new Set([
  ...['-x', '-I', '-D', '-U', '-include', '-imacros', '-isystem', '-iquote', '-idirafter', '-iprefix'],
  ...['-iwithprefix', '-iwithprefixbefore', '-isysroot', '-imultilib', '--param', '-Xpreprocessor'],
  ...['-Xassembler', '-Xclang', '-mllvm', '-target', '-arch', '-wrapper', '-specs', '-B', '-A', '--sysroot'],
]);
const droppedWithValue = new Set([
  ...[
    '-o',
    '-MF',
    '-MT',
    '-MQ',
    '-MJ',
    '-L',
    '-l',
    '-Xlinker',
    '-T',
    '-u',
    '-z',
    '-e',
    '-h',
    '-R',
    '-aux-info',
  ],
  ...['-dumpbase', '-dumpdir', '-install_name'],
]);
const dropped =
  /^-(?:c|M[MDGP]*|pipe|rdynamic|s|save-temps.*|o.+|M[FTQ].+|L.+|l.+|Wl,.*|Wp,-M.*|g(?!no-|record).*|v|time)$/;
const sourceSuffix = /\.(?:c|i|cc|cp|cxx|cpp|CPP|c\+\+|C|ii|s|S|sx)$/;
const linkedSuffix = /\.(?:o|obj|lo|a|so|la)(?:\.[\d.]+)?$/;

export function readArguments(words: readonly string[]): CompilerArguments {
  const [sources, others, flags]: [string[], string[], string[]] = [[], [], []];
  let language: string | undefined;
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? '';
    if (droppedWithValue.has(word)) {
      index++;
    } else if (withValue.has(word)) {
      const value = words[++index] ?? '';
      if (word === '-x') language = value === 'none' ? undefined : value;
      flags.push(word, value);
    } else if (word.startsWith('-')) {
      if (!dropped.test(word)) flags.push(word);
    } else if (sourceSuffix.test(word) || (language !== undefined && !linkedSuffix.test(word))) {
      sources.push(word);
    } else {
      others.push(word);
    }
  }
  return { sources, others, flags };
}

/** Assembler sources have no sections for each function, whatever the flags. */
export const isAssembler = (source: string): boolean => /\.(?:s|S|sx)$/.test(source);

/** Where `-c` puts the object of `source` when no -o says otherwise. */
export const defaultObject = (source: string): string => `${path.basename(source, path.extname(source))}.o`;

/** Replaces `@file` by the words of the file, as GCC does (GCC manual, "@file"); `read` gives undefined for none. */
export function expandResponseFiles(
  words: readonly string[],
  read: (file: string) => string | undefined,
  depth = 0,
): string[] {
  return words.flatMap((word) => {
    const text = word.startsWith('@') && depth < 10 ? read(word.slice(1)) : undefined;
    return text === undefined ? [word] : expandResponseFiles(splitWords(text), read, depth + 1);
  });
}

/** White space separates, quotes of both kinds group, a backslash protects any character. */
function splitWords(text: string): string[] {
  const words: string[] = [];
  for (const [word] of text.matchAll(
    /(?:[^\s"'\\]|\\[\s\S]|"(?:\\[\s\S]|[^"\\])*"|'(?:\\[\s\S]|[^'\\])*')+/g,
  )) {
    words.push(word.replace(/\\([\s\S])|["']/g, (_, escaped?: string) => escaped ?? ''));
  }
  return words;
}
