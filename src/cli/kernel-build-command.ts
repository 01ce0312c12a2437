// `kcare-build kernel`: make a livepatch module for a kernel of the distribution from a recipe or a diff.
import { Command, InvalidArgumentError, Option } from 'commander';
import { KcareError } from '../base/errors.js';
import {
  buildKernelDiff,
  buildKernelRecipe,
  type KernelBuildOptions,
  type KernelBuildResult,
} from '../kbuild/index.js';
import { manualPage } from './manual-page.js';
import { outcomeExit } from './outcome-exit.js';
import { printJson, printLine } from './print.js';
import { progressBar } from './progress.js';
import { kernelRefusalLines, kernelRefusalsJson } from './refusal-text.js';
import { collected, collectedList } from './repeated-option.js';

interface KernelFlags {
  readonly diff?: string;
  readonly kernel?: string;
  readonly cve: readonly string[];
  readonly name?: string;
  readonly level?: number;
  readonly effective?: string;
  readonly source: readonly string[];
  readonly key?: string;
  readonly certificate?: string;
  readonly output?: string;
  readonly work?: string;
  readonly json?: true;
}

/** The command; its action throws KcareError. */
export function kernelCommand(): Command {
  return new Command('kernel')
    .description('build a livepatch module for a kernel of the archive, from a recipe or a diff')
    .argument('[recipe]', 'the recipe (YAML)')
    .option('--diff <FILE>', 'Make the changes of this unified diff, instead of those of a recipe.')
    .option('--kernel <RELEASE>', 'For this kernel, as uname -r prints it; needed with --diff.')
    .option(
      '--cve <IDS>',
      'Only these fixes of the recipe; with commas between them, or repeated.',
      collectedList,
      [],
    )
    .addOption(
      new Option('--name <NAME>', 'With --diff: the module is kcare_NAME_LEVEL (default: local).').argParser(
        moduleName,
      ),
    )
    .option('--level <N>', 'The level of the patch (default: that of the recipe, or 1).', level)
    .option('--effective <RELEASE>', 'The release that the kernel is worth with the patch.')
    .option(
      '--source <FILE>',
      'Compile this C source with callbacks into the module; repeatable.',
      collected,
      [],
    )
    .option('--key <FILE>', 'Sign the module with this private key (PEM); needs --certificate.')
    .option('--certificate <FILE>', 'The certificate of the key (PEM), which the kernel must trust.')
    .option('--output <DIR>', 'Where the module goes (default: patches/RELEASE in the work directory).')
    .option(
      '--work <DIR>',
      'Downloads, trees and objects (default: $KCARE_WORK, or .cache/build in the package).',
    )
    .option('--json', 'Print the result as JSON.')
    .configureHelp({ formatHelp: manualPage(page) })
    .action(buildKernel);
}

const page = {
  name: 'kcare-build kernel - build a livepatch module for a kernel of the archive, from a recipe or a diff',
  synopsis: `kcare-build kernel [--kernel RELEASE] [--cve IDS] [--level N] [--effective RELEASE] [--source FILE]... [--key FILE --certificate FILE] [--output DIR] [--work DIR] [--json] RECIPE
kcare-build kernel --diff FILE --kernel RELEASE [--name NAME] [--level N] [--effective RELEASE] [--source FILE]... [--key FILE --certificate FILE] [--output DIR] [--work DIR] [--json]`,
  description: `Fetches image, headers and source of the kernel from the archive, changes its source as the recipe or the diff says, compiles the units that change with the commands of the kernel's own build, and compares them function by function. Every function that is replaced is found in the shipped kernel, or in its module, by its bytes. What cannot be patched soundly is refused, with all reasons at once. Nothing is installed, and no kernel is touched.

A recipe names functions, which are taken from the source of a newer version of the kernel's packages. A diff is one for the source of exactly this kernel (diff -u, one directory stripped, as by patch -p1); of a kernel's source only its .c files can be changed by one.

The first run for a kernel unpacks its source, which takes about a minute; later ones take seconds. The steps are shown on standard error, as a bar where that is a terminal.

docs/building-kernel-patches.md describes recipes and refusals; docs/kernel.md says how the module is published and loaded.`,
  exit: `0
  Built.
1
  A tool failed, a file is missing, or the diff does not fit.
2
  Refused; all reasons are listed.
3
  Nothing to do: the changes give the same code (comments, line numbers), or the kernel has the fixes already.
64
  Wrong options.`,
  examples: `kcare-build kernel recipes/debian12/kernel.yaml
  A module with all fixes of the recipe.
kcare-build kernel --cve CVE-2026-93146 --kernel 6.1.0-50-cloud-amd64 --json recipes/debian12/kernel.yaml
kcare-build kernel --diff fix.patch --kernel $(uname -r) --output /root/patches
  A fix of your own for the kernel that runs.`,
};

function level(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('It is not a level from 1 to 999999999.');
  return Number(text);
}

function moduleName(text: string): string {
  if (!/^[a-z0-9][a-z0-9_]{0,39}$/.test(text))
    throw new InvalidArgumentError('It is not made of up to 40 lower-case letters, digits and underscores.');
  return text;
}

async function buildKernel(recipe: string | undefined, flags: KernelFlags): Promise<void> {
  const bar = progressBar('steps');
  const name = flags.kernel ?? 'kernel';
  const options: KernelBuildOptions = {
    ...commonOptions(flags),
    onProgress: (done, total, stage) => {
      bar.show(done, total, new Map([[name, stage]]), name);
    },
  };
  try {
    const result = await (recipe === undefined
      ? fromDiff(flags, options)
      : fromRecipe(recipe, flags, options));
    bar.clear();
    if (flags.json === true) printJson(toJson(result));
    else for (const line of describe(result)) printLine(line);
    process.exitCode = outcomeExit[result.outcome];
  } finally {
    bar.clear();
  }
}

function commonOptions(flags: KernelFlags): KernelBuildOptions {
  const { work, output, level: number, effective, source, key, certificate } = flags;
  if ((key === undefined) !== (certificate === undefined))
    throw new KcareError('USAGE', '--key and --certificate belong together.');
  return {
    ...(work !== undefined && { work }),
    ...(output !== undefined && { output }),
    ...(number !== undefined && { level: number }),
    ...(effective !== undefined && { effective }),
    ...(source.length > 0 && { sources: source }),
    ...(key !== undefined && certificate !== undefined && { signingKey: { key, certificate } }),
  };
}

function fromRecipe(
  recipe: string,
  flags: KernelFlags,
  options: KernelBuildOptions,
): Promise<KernelBuildResult> {
  for (const option of ['diff', 'name'] as const)
    if (flags[option] !== undefined)
      throw new KcareError('USAGE', `--${option} does not go together with a recipe.`);
  return buildKernelRecipe(recipe, {
    ...{ ...options, cves: flags.cve },
    ...(flags.kernel !== undefined && { kernel: flags.kernel }),
  });
}

function fromDiff(
  { diff, kernel, cve, name = 'local' }: KernelFlags,
  options: KernelBuildOptions,
): Promise<KernelBuildResult> {
  if (diff === undefined) throw new KcareError('USAGE', 'Name a recipe, or a diff by --diff.');
  if (kernel === undefined)
    throw new KcareError('USAGE', 'With --diff, name the kernel by --kernel RELEASE (uname -r).');
  if (cve.length > 0) throw new KcareError('USAGE', '--cve belongs to a recipe.');
  return buildKernelDiff({ file: diff, name }, { ...options, kernel });
}

function toJson({
  outcome,
  file,
  kernel,
  name,
  level: number,
  cves,
  units,
  refusals,
}: KernelBuildResult): object {
  return {
    ...{ outcome, file, kernel, name, level: number, cves },
    units: units.map(({ source, module, changedFunctions, newFunctions, newData, symbols }) => ({
      ...{ source, module, changed: changedFunctions, added: newFunctions, newData },
      resolved: [...symbols].filter(([, symbol]) => !symbol.isExported).map(([symbol]) => symbol),
    })),
    refusals: kernelRefusalsJson(refusals),
  };
}

function describe(result: KernelBuildResult): string[] {
  const { outcome, file, kernel, level: number, units, refusals, cves } = result;
  const where = `Linux ${kernel.release} (${kernel.version})`;
  if (outcome === 'unchanged') return [`Nothing to do: the changes give the code that ${where} has.`];
  if (outcome === 'refused')
    return [`Refused, no module was made for ${where}:`, ...kernelRefusalLines(refusals, '  ')];
  return [
    file ?? '',
    `  ${where}, build-id ${kernel.buildId}, level ${number}`,
    ...units.flatMap(({ source, module, changedFunctions, newFunctions }) => {
      const place = module === undefined ? source : `${source}, module ${module}`;
      return [
        ...changedFunctions.map((name) => `  replace ${name} (${place})`),
        ...newFunctions.map((name) => `  add ${name} (${place})`),
      ];
    }),
    ...(cves.length > 0 ? [`  ${cves.map(({ id }) => id).join(' ')}`] : []),
  ];
}
