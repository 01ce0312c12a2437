// How a project is built and cleaned, and the environment in which its compilers are recorded.
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { mkdir, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { shellWords } from '../build/configure.js';
import { packageRoot } from '../base/package-root.js';

const makefiles = ['GNUmakefile', 'makefile', 'Makefile'];

/** The command that builds what is in `directory`. Throws USAGE when nothing tells. */
export function defaultCommand(directory: string): string {
  if (makefiles.some((name) => existsSync(path.join(directory, name)))) return 'make';
  if (existsSync(path.join(directory, 'build.ninja'))) return 'ninja';
  const steps = [
    ['configure', 'CC=libcare-cc CXX=libcare-c++ ./configure'],
    ['CMakeLists.txt', 'CC=libcare-cc CXX=libcare-c++ cmake -B build && cd build; then give --srcdir ..'],
    ['meson.build', 'CC=libcare-cc CXX=libcare-c++ meson setup build && cd build; then give --srcdir ..'],
  ] as const;
  const advice = steps.find(([name]) => existsSync(path.join(directory, name)))?.[1];
  throw new KcareError(
    'USAGE',
    advice === undefined
      ? `${directory} has no makefile and no build.ninja; name the build command with --build.`
      : `${directory} is not configured yet. First: ${advice}`,
  );
}

/** The command that removes what `command` makes; undefined where nothing tells. */
export function cleanCommand(command: string): string | undefined {
  // Of several commands nobody knows which one made what.
  const words = /[;&|()<>`\n]/.test(command) ? [] : shellWords(command);
  const [tool = '', second = ''] = words;
  if (tool === 'cmake' && second === '--build')
    return `cmake --build ${quoted(words[2] ?? '.')} --target clean`;
  if (tool !== 'make' && tool !== 'gmake' && tool !== 'ninja') return undefined;
  const place: string[] = [];
  words.forEach((word, index) => {
    if (/^-[Cf]$/.test(word)) place.push(word, words[index + 1] ?? '');
    else if (/^-[Cf]./.test(word) || /^\w+=/.test(word)) place.push(word);
  });
  return [tool, ...place, ...(tool === 'ninja' ? ['-t'] : []), 'clean'].map(quoted).join(' ');
}

const quoted = (word: string): string =>
  /^[\w./=+:@%-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

const compilerName = /^(?:[\w.]+-linux-gnu-)?(?:gcc|g\+\+|clang|clang\+\+)(?:-\d+)?$/;

/** A directory of compiler names that all lead to libcare-cc; it goes first in PATH. */
export async function makeCompilerDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const wrapper = path.join(packageRoot(), 'bin', 'libcare-cc');
  const names = new Set(['cc', 'c++', 'c99', 'c89']);
  for (const place of (process.env['PATH'] ?? '').split(':')) {
    if (place === '' || !existsSync(place)) continue;
    for (const name of readdirSync(place)) if (compilerName.test(name)) names.add(name);
  }
  for (const name of names) if (isInPath(name)) await symlink(wrapper, path.join(directory, name));
}

function isInPath(name: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((place) => {
    try {
      accessSync(path.join(place, name), constants.X_OK);
      return place !== '';
    } catch {
      return false;
    }
  });
}

/** For a build whose compiles and links go to `records`. A compiler cache would answer without a compiler. */
export function recordingEnvironment(compilers: string, records: string): Record<string, string> {
  const here = path.join(packageRoot(), 'bin');
  const include = path.join(packageRoot(), 'include');
  return {
    PATH: [compilers, process.env['PATH'] ?? '', here].join(':'),
    LIBCARE_RECORD: records,
    // Patched sources include <kcare-patch.h>.
    CPATH: [process.env['CPATH'] ?? '', include].filter((place) => place !== '').join(':'),
    CCACHE_DISABLE: '1',
  };
}
