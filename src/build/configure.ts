// A configured copy of the source tree with the distribution's flags, and the list of its compile commands.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { KcareError } from '../base/errors.js';
import { unpackSource } from './archive.js';
import type { Recipe } from './recipe.js';
import { run } from './run.js';
import { withLock } from './work-directory.js';

export interface CompileCommand {
  /** Where it runs, relative to the build directory; there itself when absent. */
  readonly directory?: string | undefined;
  /** Source and object as the command spells them, relative to its directory. */
  readonly source: string;
  readonly object: string;
  readonly compiler: string;
  /** Everything else: no source, no output, no dependency files. */
  readonly flags: readonly string[];
}

export interface ConfiguredTree {
  /** Identifies version, flags and commands; equal keys mean equal trees. */
  readonly key: string;
  readonly tree: string;
  /** Directory in which the compile commands run, but for those that name another. */
  readonly buildDirectory: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly commands: readonly CompileCommand[];
}

const cacheSchema = z.object({
  environment: z.record(z.string(), z.string()),
  commands: z.array(
    z.object({
      directory: z.string().optional(),
      source: z.string(),
      object: z.string(),
      compiler: z.string(),
      flags: z.array(z.string()),
    }),
  ),
});

/** Words of one shell command without expansions: quotes and backslashes as in POSIX, 2.2 "Quoting". */
export function shellWords(line: string): string[] {
  const words: string[] = [];
  for (const [word] of line.matchAll(/(?:[^\s"'\\]|\\.|"(?:\\.|[^"\\])*"|'[^']*')+/g)) {
    words.push(
      word.replace(
        /\\(.)|"((?:\\.|[^"\\])*)"|'([^']*)'/g,
        (_, escaped?: string, double?: string, single?: string) =>
          escaped ?? double?.replace(/\\(["\\$`])/g, '$1') ?? single ?? '',
      ),
    );
  }
  return words;
}

/** The C compile command in one line of `make -n`; undefined for any other line. */
export function parseCompileCommand(line: string): CompileCommand | undefined {
  if (!/\s-c\s/.test(line)) return undefined;
  const [compiler, ...words] = shellWords(line);
  const flags: string[] = [];
  let [source, object] = ['', ''];
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? '';
    if (word === '-o') object = words[++index] ?? '';
    else if (word === '-MF' || word === '-MT' || word === '-MQ') index++;
    else if (word === '-c' || word === '-MMD' || word === '-MD' || word === '-MP') continue;
    else if (!word.startsWith('-') && word.endsWith('.c')) source = word;
    else flags.push(word);
  }
  return compiler && source && object ? { source, object, compiler, flags } : undefined;
}

/** The compile commands in the output of `make -n`, begun in `start`, with the directories that make enters. */
export function parseCompileCommands(output: string, start: string): CompileCommand[] {
  const entered: string[] = [];
  return output.split('\n').flatMap((line) => {
    const [, directory] = /^\S*make(?:\[\d+\])?: Entering directory '(.*)'$/.exec(line) ?? [];
    if (directory !== undefined) entered.push(path.relative(start, directory));
    else if (/^\S*make(?:\[\d+\])?: Leaving directory '/.test(line)) entered.pop();
    const command = parseCompileCommand(line);
    const current = entered.at(-1) ?? '';
    return command ? [{ ...command, ...(current !== '' && { directory: current }) }] : [];
  });
}

/** Directory in which `command` runs. */
export function directoryOf({ buildDirectory }: ConfiguredTree, { directory }: CompileCommand): string {
  return path.resolve(buildDirectory, directory ?? '.');
}

async function distributionEnvironment(tree: string, recipe: Recipe): Promise<Record<string, string>> {
  const own = recipe.build.environment;
  const options = { directory: tree, environment: own };
  const timestamp = (await run('dpkg-parsechangelog', ['-STimestamp'], options)).trim();
  const environment: Record<string, string> = { ...own, SOURCE_DATE_EPOCH: timestamp };
  for (const flag of ['CFLAGS', 'CPPFLAGS', 'CXXFLAGS', 'LDFLAGS']) {
    const output = await run('dpkg-buildflags', ['--get', flag], {
      directory: tree,
      environment: { ...own, [flag]: '' },
    });
    environment[flag] = output.trim();
  }
  return environment;
}

/** Configures the source of `version` once as `recipe.build` says; later calls read what was kept. */
export async function configureTree(work: string, recipe: Recipe, version: string): Promise<ConfiguredTree> {
  const pristine = await unpackSource(work, recipe.package.source, version);
  const hash = createHash('sha256')
    .update(JSON.stringify([version, recipe.build]))
    .digest('hex');
  const directory = path.join(work, 'configured', `${recipe.package.source}_${version}_${hash.slice(0, 12)}`);
  const tree = path.join(directory, 'tree');
  const buildDirectory = path.join(tree, recipe.build.directory);
  // Written last: a tree without it was interrupted and is made anew.
  const record = path.join(directory, 'commands.json');
  if (!existsSync(record)) {
    await withLock(directory, async () => {
      if (existsSync(record)) return;
      await rm(tree, { recursive: true, force: true });
      await cp(pristine, tree, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
      await mkdir(buildDirectory, { recursive: true });
      const environment = await distributionEnvironment(tree, recipe);
      const options = { directory: buildDirectory, environment };
      for (const command of recipe.build.configure) await run('sh', ['-ec', command], options);
      const output = await run('sh', ['-ec', recipe.build.commands], options);
      const commands = parseCompileCommands(output, buildDirectory);
      if (commands.length === 0) {
        throw new KcareError('BUILD_TOOL_FAILED', `"${recipe.build.commands}" printed no compile command.`);
      }
      await writeFile(record, JSON.stringify({ environment, commands }));
    });
  }
  const cached = cacheSchema.parse(JSON.parse(await readFile(record, 'utf8')));
  return { key: hash, tree, buildDirectory, ...cached };
}
