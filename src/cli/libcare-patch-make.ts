// `libcare-patch-make`: makes patches for running processes out of a project's sources, its own build and source patches.
import path from 'node:path';
import { Command, InvalidArgumentError, type Help } from 'commander';
import { version } from '../agent/index.js';
import { exitCodes, KcareError } from '../base/errors.js';
import { makePatches, type MadeDeliverable, type MakeResult } from '../make/index.js';
import { patchJson } from './patch-json.js';
import { optionsSection, section } from './manual-page.js';
import { visible } from './print.js';
import { refusalLines, refusalsJson } from './refusal-text.js';
import { collected } from './repeated-option.js';
import { exitCodeOf } from './run-program.js';

interface Flags {
  readonly clean?: true;
  readonly update?: true;
  readonly srcdir: string;
  readonly output: string;
  readonly build?: string;
  readonly only: readonly string[];
  readonly level: number;
  readonly package?: string;
  readonly packageVersion?: string;
  readonly verbose?: true;
  readonly json?: true;
}

const outcomeExit = {
  built: exitCodes.done,
  cleaned: exitCodes.done,
  refused: exitCodes.refused,
  unchanged: exitCodes.nothingChanged,
} as const satisfies Record<MakeResult['outcome'], number>;

const program = new Command('libcare-patch-make')
  .argument('[patches...]')
  .option(
    '--clean',
    'First remove what earlier runs and builds left: the directories .libcare, and what the build\'s own "clean" removes. Without patches, do only that.',
  )
  .option(
    '--update',
    'Do not build the unpatched project; take it as an earlier run or libcare-cc recorded it.',
  )
  .option(
    '--srcdir <DIR>',
    'Apply the patches in this directory (default: where the command is called).',
    '.',
  )
  .option(
    '--build <COMMAND>',
    'The shell command that builds the project (default: make, or ninja where there is a build.ninja).',
  )
  .option('--output <DIR>', 'Where the patches go (default: patchroot).', 'patchroot')
  .option(
    '--only <NAME>',
    'Make patches only for programs and libraries of this file name; repeatable.',
    collected,
    [],
  )
  .option(
    '--level <N>',
    'Level of the patches: one with a higher level replaces one with a lower (default: 1).',
    level,
    1,
  )
  .option('--package <NAME>', 'Package that the patches name (default: the name of the source directory).')
  .option('--package-version <VERSION>', 'Version that they name.')
  .option('--verbose', 'Show what the builds print, on standard error.')
  .option('--json', 'Print the result, and errors, as JSON.')
  .version(version(), '--version', 'Print the version.')
  .helpOption('--help', 'Print this page.')
  .configureHelp({ formatHelp })
  .showHelpAfterError('See libcare-patch-make --help.')
  .exitOverride();

function level(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('It is not a positive number.');
  return Number(text);
}

function formatHelp(command: Command, helper: Help): string {
  const head: [string, string][] = [
    ['NAME', 'libcare-patch-make - make patches for running processes from source patches'],
    [
      'SYNOPSIS',
      `libcare-patch-make [--clean] [--update] [--srcdir DIR] PATCH...
CC=libcare-cc CXX=libcare-c++ ./configure && make && libcare-patch-make PATCH...
libcare-patch-make --clean`,
    ],
    [
      'DESCRIPTION',
      `Called where a project is built. Builds it with its own build, applies the source patches in their order as patch -p1 does, builds it again, and puts all of its files back. For each program and each shared library whose code changed it leaves one patch, patchroot/BUILD-ID.kpatch, which kcarectl patch applies to running processes.

Processes must run what this build linked: the patches are for its build-ids. A build that gives the same bytes again (the usual one) serves as well.

Functions are compared after a compile that gives each a section of its own; lines that the patches leave alone keep their numbers, so that assert() and its kind make no differences. Each changed function is then looked up at the place that the linker's map names, and the bytes of its whole unit must be there. What cannot be patched soundly is refused, with all reasons at once; then no patch is left at all.

Compilers are found through PATH and recorded. Where a build names its compiler by a whole path (CMake and Meson do, from their configuration on), configure it with CC=libcare-cc CXX=libcare-c++. Links are given a build-id and write a map of the linker; compiles are not changed.`,
    ],
  ];
  const tail: [string, string][] = [
    [
      'FILES',
      `patchroot/BUILD-ID.kpatch
  The patches.
.libcare/
  Records of the build, copies of what was linked, and during a run all files of the project. A run that was killed is undone by the next one.`,
    ],
    [
      'ENVIRONMENT',
      `LIBCARE_CC, LIBCARE_CXX
  The compilers behind libcare-cc and libcare-c++ (default: cc, c++).
SOURCE_DATE_EPOCH
  As always; projects whose build depends on the clock need it.`,
    ],
    [
      'EXIT STATUS',
      `0
  Built; or, without patches, cleaned.
1
  A tool failed, or a source patch does not apply.
2
  Refused; all reasons are listed.
3
  Nothing changed: the patched sources give the same code.
64
  Wrong options.`,
    ],
    [
      'EXAMPLES',
      `libcare-patch-make fix.patch
  In a project with a makefile.
libcare-patch-make --clean --build 'make -j2 lib' fix.patch
  The project was built before, without being recorded.
cd build && libcare-patch-make --srcdir .. ../fix.patch
  CMake or Meson, configured with CC=libcare-cc CXX=libcare-c++.
kcarectl patch $(pidof daemon) patchroot
  Apply them.`,
    ],
  ];
  return `${[
    ...head.map(([title, text]) => section(title, text)),
    optionsSection(command, helper),
    ...tail.map(([title, text]) => section(title, text)),
  ].join('\n\n')}\n`;
}

async function main(): Promise<number> {
  program.parse();
  const flags = program.opts<Flags>();
  if (program.args.length === 0 && flags.clean !== true)
    throw new KcareError('USAGE', 'Name at least one source patch, or --clean.');
  if (flags.clean === true && flags.update === true)
    throw new KcareError('USAGE', '--clean removes the record that --update would use; give one of them.');
  const abort = new AbortController();
  // The build ends, and the files go back to what they were; only then does the program.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => abort.abort());
  const result = await makePatches({
    patches: program.args,
    buildDirectory: process.cwd(),
    sourceDirectory: path.resolve(flags.srcdir),
    output: path.resolve(flags.output),
    command: flags.build,
    clean: flags.clean === true,
    update: flags.update === true,
    only: flags.only,
    level: flags.level,
    package: flags.package,
    packageVersion: flags.packageVersion,
    verbose: flags.verbose === true,
    signal: abort.signal,
    onProgress: (message) => process.stderr.write(`${visible(message)}\n`),
  });
  process.stdout.write(flags.json === true ? `${JSON.stringify(toJson(result))}\n` : describe(result));
  return outcomeExit[result.outcome];
}

function toJson({ outcome, deliverables, refusals, notes }: MakeResult): object {
  return {
    outcome,
    deliverables: deliverables.map(({ patch, refusals: own, ...rest }) => ({
      ...rest,
      refusals: refusalsJson(own),
      ...patchJson(patch),
    })),
    refusals: refusalsJson(refusals),
    notes,
  };
}

function describe({ outcome, deliverables, refusals, notes }: MakeResult): string {
  const lines = {
    built: [],
    cleaned: ['Cleaned.'],
    refused: ['Refused, no patch was made:'],
    unchanged: ['Nothing changed: the patched sources give the same code.'],
  }[outcome].slice();
  lines.push(...refusalLines(refusals, '  '));
  for (const deliverable of deliverables) lines.push(...describeDeliverable(deliverable, outcome));
  for (const note of notes) lines.push(`Note: ${note}`);
  return `${lines.map(visible).join('\n')}\n`;
}

function describeDeliverable(
  { name, buildId, refusals, file, patch }: MadeDeliverable,
  outcome: MakeResult['outcome'],
): string[] {
  if (file !== undefined && patch) {
    return [
      path.relative(process.cwd(), file),
      `  ${name}, build-id ${buildId}, level ${patch.metadata.level}`,
      ...patch.hunks.map(
        ({ kind, name: hunk, address, size }) =>
          `  ${kind} ${hunk} at 0x${address.toString(16)}, ${size} bytes`,
      ),
      ...patch.metadata.cves.map(({ id }) => `  ${id}`),
    ];
  }
  if (refusals.length === 0) return outcome === 'refused' ? [`  ${name}: nothing against it`] : [];
  return [`  ${name}, build-id ${buildId}:`, ...refusalLines(refusals, '    ')];
}

process.exitCode = await exitCodeOf('libcare-patch-make', main);
