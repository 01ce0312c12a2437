// Reads what bin/libcare-cc recorded: compiles and links of a project's own build, in the order in which they ran.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { defaultObject, expandResponseFiles, readArguments } from './compiler-arguments.js';

export interface RecordedCompile {
  /** Working directory of the command; its relative paths count from there. */
  readonly directory: string;
  readonly compiler: string;
  /** As the command spells it. */
  readonly source: string;
  /** Whole path of the object; undefined where the same command linked it, through a temporary file. */
  readonly object: string | undefined;
  readonly flags: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

export interface RecordedLink {
  readonly directory: string;
  /** Whole path of what was linked, at that time. */
  readonly output: string;
  /** A copy of it, made right after the link. */
  readonly linked: string;
  /** The linker's map; may be missing. */
  readonly map: string;
  /** Sources that the same command compiled. */
  readonly compiles: readonly RecordedCompile[];
}

export interface BuildRecords {
  /** The newest compile of each object, and those that left none. */
  readonly compiles: readonly RecordedCompile[];
  /** The newest link of each output. */
  readonly links: readonly RecordedLink[];
}

const environmentNames = ['CPATH', 'C_INCLUDE_PATH', 'CPLUS_INCLUDE_PATH', 'SOURCE_DATE_EPOCH'] as const;
const suffix = '.record';

/** Records of all `directories`; those that are missing count as empty. */
export function readRecords(directories: readonly string[]): BuildRecords {
  const files = directories
    .filter((directory) => existsSync(directory))
    .flatMap((directory) => readdirSync(directory).map((name) => path.join(directory, name)))
    .filter((file) => file.endsWith(suffix))
    .map((file) => ({ file, time: statSync(file, { bigint: true }).mtimeNs }))
    .sort((left, right) => (left.time < right.time ? -1 : 1));
  const compiles = new Map<string, RecordedCompile>();
  const links = new Map<string, RecordedLink>();
  for (const { file } of files) {
    const { kind, output, command } = readRecord(file);
    const made = compilesOf(kind, output, command);
    for (const compile of made) compiles.set(compileKey(compile), compile);
    if (kind !== 'link') continue;
    const base = file.slice(0, -suffix.length);
    const place = path.resolve(command.directory, output === '' ? 'a.out' : output);
    links.set(place, {
      directory: command.directory,
      output: place,
      linked: `${base}.linked`,
      map: `${base}.map`,
      compiles: made,
    });
  }
  return { compiles: [...compiles.values()], links: [...links.values()] };
}

/** What tells one compile of a build from another; the same in two builds of the same project. */
export function compileKey({ object, directory, source, flags }: RecordedCompile): string {
  return object ?? JSON.stringify([directory, source, flags]);
}

/** Whole path of the source. */
export const sourceOf = ({ directory, source }: RecordedCompile): string => path.resolve(directory, source);

interface Command {
  readonly directory: string;
  readonly compiler: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly words: readonly string[];
}

function readRecord(file: string): { kind: string; output: string; command: Command } {
  // The text ends with a NUL.
  const fields = readFileSync(file, 'utf8').split('\0').slice(0, -1);
  const [kind = '', directory = '', compiler = '', output = '', ...rest] = fields;
  const values = rest.slice(0, environmentNames.length);
  const environment = Object.fromEntries(
    environmentNames.flatMap((name, index) => (values[index] ? [[name, values[index]]] : [])),
  );
  const words = expandResponseFiles(rest.slice(environmentNames.length), (name) => {
    const place = path.resolve(directory, name);
    return existsSync(place) ? readFileSync(place, 'utf8') : undefined;
  });
  return { kind, output, command: { directory, compiler, environment, words } };
}

function compilesOf(kind: string, output: string, command: Command): RecordedCompile[] {
  const { directory, compiler, environment, words } = command;
  const { sources, flags } = readArguments(words);
  return sources.map((source) => {
    const object = kind === 'link' ? undefined : path.resolve(directory, output || defaultObject(source));
    return { directory, compiler, source, object, flags, environment };
  });
}
