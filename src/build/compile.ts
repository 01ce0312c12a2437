// Compiles single translation units of a configured tree, through a cache keyed by command and contents.
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { directoryOf, type CompileCommand, type ConfiguredTree } from './configure.js';
import { run } from './run.js';

export interface CompiledUnit {
  readonly object: Uint8Array;
  /** One line for each call that the compiler inlined: "callee caller". */
  readonly inlined: readonly string[];
}

/** Each function and each datum in a section of its own, so that untouched ones compare equal. */
export const sectionFlags = ['-ffunction-sections', '-fdata-sections'] as const;

/** What an old header would not know must not become a guess of the compiler; without effect on the code. */
const strictness = [
  '-Werror=implicit-function-declaration',
  '-Werror=int-conversion',
  '-Werror=incompatible-pointer-types',
];

let compilerVersion: Promise<string> | undefined;

/**
 * Compiles `text` as if it were the source of `command`. The copy lies outside the tree; -iquote keeps the meaning
 * of its #include "…" lines. Throws BUILD_TOOL_FAILED with the compiler's messages.
 */
export async function compileUnit(
  work: string,
  tree: ConfiguredTree,
  command: CompileCommand,
  text: string,
  extraFlags: readonly string[] = [],
): Promise<CompiledUnit> {
  compilerVersion ??= run(command.compiler, ['-v', '--version']);
  const flags = [...command.flags, ...extraFlags, '-g0', '-iquote', path.dirname(command.source)];
  const key = createHash('sha256')
    .update(
      JSON.stringify([
        tree.key,
        tree.tree,
        command.directory,
        await compilerVersion,
        command.compiler,
        flags,
        text,
      ]),
    )
    .digest('hex');
  const directory = path.join(work, 'objects', key.slice(0, 2));
  const base = path.join(directory, key);
  if (!existsSync(`${base}.o`)) {
    await mkdir(directory, { recursive: true });
    const temporary = path.join(directory, `part-${randomBytes(6).toString('hex')}`);
    const [source, object, inlining] = [`${temporary}.c`, `${temporary}.o`, `${temporary}.inlined`];
    try {
      await writeFile(source, text);
      await run(
        command.compiler,
        [...flags, ...strictness, `-fopt-info-inline-optimized=${inlining}`, '-c', '-o', object, source],
        { directory: directoryOf(tree, command), environment: tree.environment },
      );
      const notes = existsSync(inlining) ? await readFile(inlining, 'utf8') : '';
      await writeFile(`${base}.inlined`, parseInlining(notes).join('\n'));
      await rename(object, `${base}.o`);
    } finally {
      for (const file of [source, object, inlining]) await rm(file, { force: true });
    }
  }
  const inlined = (await readFile(`${base}.inlined`, 'utf8')).split('\n').filter((line) => line !== '');
  return { object: await readFile(`${base}.o`), inlined };
}

/** "callee caller" pairs of GCC's -fopt-info-inline-optimized, sorted and unique. */
export function parseInlining(notes: string): string[] {
  const pattern = /Inlin(?:ed|ing) ([\w.]+)\/\d+ into ([\w.]+)\/\d+/g;
  return [
    ...new Set([...notes.matchAll(pattern)].map(([, callee = '', caller = '']) => `${callee} ${caller}`)),
  ].sort();
}

/** Whether the code is made only when everything is linked: then no compile of a unit shows it. */
export const isLinkTimeOptimized = (flags: readonly string[]): boolean =>
  /^-flto/.test(flags.findLast((flag) => /^-f(?:no-)?lto(?:=|$)/.test(flag)) ?? '');

/** Path of the source of `command`. */
export function sourceOf(tree: ConfiguredTree, command: CompileCommand): string {
  return path.resolve(directoryOf(tree, command), command.source);
}

/** The source of `command` with its path and line numbers spelled as the command does. */
export async function readUnitSource(tree: ConfiguredTree, command: CompileCommand): Promise<string> {
  const text = await readFile(sourceOf(tree, command), 'utf8');
  return `#line 1 ${JSON.stringify(command.source)}\n${text}`;
}

/** The commands that compile `file` (relative to the tree). */
export function commandsFor(tree: ConfiguredTree, file: string): CompileCommand[] {
  const wanted = path.resolve(tree.tree, file);
  return tree.commands.filter((command) => sourceOf(tree, command) === wanted);
}
