// The headers of the source tree that a unit includes, in both versions.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { directoryOf, type CompileCommand, type ConfiguredTree } from './configure.js';
import { run } from './run.js';

export interface Headers {
  readonly before: readonly string[];
  readonly after: readonly string[];
}

/** Texts of the headers that both versions have; generated ones, which only a configured tree has, are left out. */
export async function readHeaders(
  tree: ConfiguredTree,
  fixedTree: string,
  command: CompileCommand,
): Promise<Headers> {
  const directory = directoryOf(tree, command);
  const listing = await run(command.compiler, [...command.flags, '-MM', command.source], {
    directory,
    environment: tree.environment,
  });
  const files = listing
    .split(/[\s\\]+/)
    .filter((word) => word.endsWith('.h'))
    .map((word) => path.relative(tree.tree, path.resolve(directory, word)))
    .filter((file) => !file.startsWith('..') && existsSync(path.join(fixedTree, file)));
  const read = (root: string): Promise<string[]> =>
    Promise.all([...new Set(files)].map((file) => readFile(path.join(root, file), 'utf8')));
  return { before: await read(tree.tree), after: await read(fixedTree) };
}
