// Compiles single units of the kernel by the commands that its own build would use, through a cache.
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { run } from '../build/index.js';

/** How the build of the kernel compiles one unit. */
export interface UnitCommand {
  /** Relative to the tree. */
  readonly source: string;
  /** Words for a shell: the compiler and its options, without input and output. */
  readonly compile: string;
  /** Words for a shell: objtool and its options; undefined where the build does not run it. */
  readonly check: string | undefined;
  /** The module that the code becomes part of; undefined: the kernel itself. */
  readonly module: string | undefined;
}

const commandPattern =
  /(?:^|; )(gcc\S* -Wp,-MMD,\S+ [^;]*?) -c -o \S+\.o (\S+\.c)\s*(?:;\s*(\.\/tools\/objtool\/objtool [^;]*?)\s+\S+\.o)?\s*(?:;|$)/;

/**
 * Asks the build of the prepared tree how it compiles `sources`; those that it does not compile are left out.
 * Throws BUILD_TOOL_FAILED.
 */
export async function unitCommands(
  tree: string,
  sources: readonly string[],
): Promise<Map<string, UnitCommand>> {
  const found = new Map<string, UnitCommand>();
  const byTop = new Map<string, string[]>();
  for (const source of sources) {
    const [top = '', ...rest] = source.split('/');
    // Makefiles below arch are no part of one another.
    const depth = top === 'arch' ? source.split('/').slice(0, 3).join('/') : top;
    const target = (top === 'arch' ? source.slice(depth.length + 1) : rest.join('/')).replace(/\.c$/, '.o');
    byTop.set(depth, [...(byTop.get(depth) ?? []), target]);
  }
  for (const [top, targets] of byTop) {
    // One that is not built ends make with an error: then each is asked for by itself.
    const all = await askMake(tree, top, targets).catch(() => undefined);
    const outputs = all === undefined ? [] : [all];
    if (all === undefined)
      for (const target of targets) {
        outputs.push(
          await askMake(tree, top, [target]).catch((error: unknown) => {
            if (error instanceof KcareError && /No rule to make target/.test(error.message)) return '';
            throw error;
          }),
        );
      }
    for (const command of outputs.flatMap(parseCommands)) found.set(command.source, command);
  }
  return found;
}

const askMake = (tree: string, top: string, targets: readonly string[]): Promise<string> =>
  run('make', ['--no-print-directory', '-n', 'V=1', `M=${top}`, ...targets], { directory: tree });

/** Commands in the output of `make -n`, which prints each recipe as a line of shell. */
export function parseCommands(output: string): UnitCommand[] {
  return output.split('\n').flatMap((line) => {
    if (!line.startsWith('set -e;')) return [];
    const [, compile, source, check] = commandPattern.exec(line) ?? [];
    if (compile === undefined || source === undefined) return [];
    const isModule = / -DMODULE /.test(compile);
    const module = /-DKBUILD_MODNAME='"([^"']+)"'/.exec(compile)?.[1];
    return [{ source, compile, check, module: isModule ? module : undefined }];
  });
}

const sectionFlags = '-ffunction-sections -fdata-sections';

/**
 * The source `text` of `command`'s unit → path of its object, each function and datum in a section of its own; without
 * `flags`, as the kernel's build compiles it but for debug information.
 */
export async function compileKernelUnit(
  work: string,
  tree: string,
  command: UnitCommand,
  text: string,
  flags = sectionFlags,
): Promise<string> {
  const { source, check } = command;
  const compile = command.compile.replace(/ -Wp,-MMD,\S+/, '');
  const key = createHash('sha256')
    .update(JSON.stringify([tree, compile, check, flags, text]))
    .digest('hex');
  const directory = path.join(work, 'kernel-objects', key.slice(0, 2));
  const object = path.join(directory, `${key}.o`);
  if (existsSync(object)) return object;
  await mkdir(directory, { recursive: true });
  const temporary = path.join(directory, `part-${randomBytes(6).toString('hex')}`);
  try {
    await writeFile(`${temporary}.c`, `#line 1 ${JSON.stringify(source)}\n${text}`);
    const quoted = JSON.stringify(path.dirname(source));
    const script = `${compile} -g0 ${flags} -iquote ${quoted} -c -o "$1.o" "$1.c"${
      check === undefined ? '' : ` && ${check} "$1.o"`
    }`;
    await run('sh', ['-c', script, 'sh', temporary], { directory: tree });
    await rename(`${temporary}.o`, object);
  } finally {
    for (const suffix of ['.c', '.o']) await rm(`${temporary}${suffix}`, { force: true });
  }
  return object;
}

export const readTreeFile = (tree: string, file: string): Promise<string> =>
  readFile(path.join(tree, file), 'utf8');
