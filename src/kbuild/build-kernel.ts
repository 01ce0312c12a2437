// From a recipe or a diff to a livepatch module for one kernel of the distribution.
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { compareVersions, defaultWorkDirectory, run } from '../build/index.js';
import { Refusals } from '../build/result.js';
import { kernelModuleExtension, type KernelCve } from '../patchfile/index.js';
import type { ChangedUnit } from './changed-unit.js';
import { compareKernelObjects, type KernelRefusals } from './compare-kernel.js';
import { editByDiff, editByRecipe, filesOf, filesOfDiff, type ChangedTexts } from './kernel-edit.js';
import { KernelObject } from './kernel-object.js';
import {
  findKernel,
  findSource,
  prepareKernelTree,
  sourceFiles,
  unpackKernelHeaders,
  unpackKernelImage,
  type ArchiveKernel,
  type KernelImage,
} from './kernel-packages.js';
import { readKernelRecipe, type KernelRecipe } from './kernel-recipe.js';
import { ShippedKernel } from './kernel-symbols.js';
import { compileKernelUnit, unitCommands, type UnitCommand } from './kernel-unit.js';
import { emitLivepatchModule, exportedSymbols } from './livepatch-module.js';
import type { SigningKey } from './module-signature.js';
import type { KernelRefusal, KernelRefusalCode } from './refusals.js';
import { resolveCarried, type ShippedCode } from './resolve-symbols.js';
import { shippedInKernel, shippedInModule, type Exports } from './shipped-code.js';

export interface KernelBuildOptions {
  readonly work?: string;
  /** Release of the kernel, instead of the recipe's; needed with a diff. */
  readonly kernel?: string;
  /** Directory of the module; default: patches in the work directory. */
  readonly output?: string;
  /** Fixes of the recipe; default: all. */
  readonly cves?: readonly string[];
  /** Instead of the recipe's. */
  readonly level?: number;
  readonly effective?: string;
  /** C sources with callbacks. */
  readonly sources?: readonly string[];
  readonly signingKey?: SigningKey;
  /** How many steps of how many are done, and what is done now. */
  readonly onProgress?: (done: number, total: number, stage: string) => void;
}

export interface DiffFacts {
  readonly file: string;
  /** kcare_NAME_LEVEL is the module's name. */
  readonly name: string;
}

export interface KernelBuildResult {
  readonly outcome: 'built' | 'refused' | 'unchanged';
  /** Path of the module. */
  readonly file?: string;
  readonly kernel: ArchiveKernel & { readonly buildId: string };
  /** Of the module. */
  readonly name: string;
  readonly level: number;
  readonly cves: readonly KernelCve[];
  readonly units: readonly ChangedUnit[];
  readonly refusals: readonly KernelRefusal[];
}

interface Wanted {
  readonly name: string;
  readonly level: number;
  readonly effective: string;
  readonly cves: readonly KernelCve[];
  readonly files: readonly string[];
  readonly edit: (tree: string, refusals: KernelRefusals) => Promise<ChangedTexts>;
}

/** Throws RECIPE_MALFORMED, ARCHIVE_UNAVAILABLE, BUILD_TOOL_FAILED, USAGE. */
export async function buildKernelRecipe(
  file: string,
  options: KernelBuildOptions = {},
): Promise<KernelBuildResult> {
  const whole = await readKernelRecipe(file);
  const recipe = { ...whole, cves: chosenFixes(whole, options.cves ?? []) };
  const work = options.work ?? defaultWorkDirectory();
  const kernel = await findKernel(work, options.kernel ?? recipe.kernel);
  const fixed = await findSource(work, recipe.fixed);
  const files = filesOf(recipe);
  const level = options.level ?? recipe.level;
  return build(work, kernel, options, {
    name: `kcare_${recipe.name}_${level}`,
    level,
    effective: options.effective ?? recipe.effective ?? fixed,
    cves: recipe.cves.map(({ id, score, url, description }) => ({ id, score, url, description })),
    files,
    edit: async (tree, refusals) =>
      compareVersions(kernel.version, fixed) >= 0
        ? new Map()
        : editByRecipe(tree, recipe, await sourceFiles(work, fixed, files), refusals),
  });
}

function chosenFixes({ cves }: KernelRecipe, ids: readonly string[]): KernelRecipe['cves'] {
  const unknown = ids.filter((id) => !cves.some((fix) => fix.id === id));
  if (unknown.length > 0) throw new KcareError('USAGE', `The recipe has no ${unknown.join(', ')}.`);
  return ids.length === 0 ? cves : cves.filter(({ id }) => ids.includes(id));
}

/** Throws SOURCE_PATCH_REJECTED, FILE_MISSING, ARCHIVE_UNAVAILABLE, BUILD_TOOL_FAILED, USAGE. */
export async function buildKernelDiff(
  facts: DiffFacts,
  options: KernelBuildOptions & { readonly kernel: string },
): Promise<KernelBuildResult> {
  const work = options.work ?? defaultWorkDirectory();
  const diff = await readFile(facts.file, 'utf8').catch((thrown: unknown) => {
    throw new KcareError('FILE_MISSING', `The diff ${facts.file} cannot be read.`, {}, { cause: thrown });
  });
  const { changed, added } = filesOfDiff(diff);
  if (changed.length + added.length === 0)
    throw new KcareError('SOURCE_PATCH_REJECTED', `${facts.file} is no unified diff (diff -u).`);
  const kernel = await findKernel(work, options.kernel);
  const level = options.level ?? 1;
  return build(work, kernel, options, {
    name: `kcare_${facts.name}_${level}`,
    level,
    effective: options.effective ?? kernel.version,
    cves: [],
    files: changed,
    edit: (tree, refusals) => editByDiff(tree, facts.file, diff, refusals),
  });
}

async function build(
  work: string,
  kernel: ArchiveKernel,
  options: KernelBuildOptions,
  wanted: Wanted,
): Promise<KernelBuildResult> {
  // Preparing, editing, each unit, making the module.
  const steps = { done: 0, total: 3 + wanted.files.length };
  const begin = (stage: string): void => options.onProgress?.(steps.done++, steps.total, stage);
  begin(`preparing the source of ${kernel.version}`);
  const image = await unpackKernelImage(work, kernel);
  const tree = await prepareKernelTree(work, kernel, wanted.files);
  const headers = await unpackKernelHeaders(work, kernel);
  const shipped = await ShippedKernel.open(image.vmlinux);
  const described = { ...kernel, buildId: shipped.buildId };
  const refusals: KernelRefusals = new Refusals<KernelRefusalCode>();
  begin('taking over the changes');
  const texts = await wanted.edit(tree, refusals);
  steps.total = 3 + texts.size;
  const context = { work, tree, image, shipped, exports: await exportedSymbols(headers), refusals, begin };
  // Without the changes of a header, units would not compile, or not to what is meant.
  const isWhole = !refusals.all.some(({ code }) => code === 'KERNEL_HEADER');
  const units = isWhole ? await changedUnits(context, texts) : [];
  const { name, level, cves } = wanted;
  const result = { kernel: described, name, level, cves, units, refusals: refusals.all };
  if (refusals.all.length > 0) return { outcome: 'refused', ...result };
  if (units.length === 0) return { outcome: 'unchanged', ...result };
  begin('making the module');
  const module = await emitLivepatchModule(units, {
    ...{ name, level, effective: wanted.effective, cves, headers },
    ...{ kernelBuildId: shipped.buildId, packageVersion: kernel.version },
    ...(options.sources && { sources: options.sources }),
    ...(options.signingKey && { signingKey: options.signingKey }),
  });
  const directory = options.output ?? path.join(work, 'patches', kernel.release);
  return { outcome: 'built', file: await writeModule(directory, name, module), ...result };
}

async function writeModule(directory: string, name: string, module: Uint8Array): Promise<string> {
  await mkdir(directory, { recursive: true });
  const file = path.join(directory, `${name}${kernelModuleExtension}`);
  await writeFile(`${file}.part`, module);
  await rename(`${file}.part`, file);
  return file;
}

interface Context {
  readonly work: string;
  readonly tree: string;
  readonly image: KernelImage;
  readonly shipped: ShippedKernel;
  readonly exports: Exports;
  readonly refusals: KernelRefusals;
  readonly begin: (stage: string) => void;
}

async function changedUnits(context: Context, texts: ChangedTexts): Promise<ChangedUnit[]> {
  const commands = await unitCommands(context.tree, [...texts.keys()]);
  const units: ChangedUnit[] = [];
  for (const [file, text] of texts) {
    context.begin(`compiling ${file}`);
    const command = commands.get(file);
    if (command) units.push(...(await changedUnit(context, command, text)));
    else context.refusals.add('NO_COMPILE_COMMAND', `${file} is not compiled for this kernel`);
  }
  return units;
}

/** None where nothing changes. */
async function changedUnit(
  context: Context,
  command: UnitCommand,
  { before, after }: { readonly before: string; readonly after: string },
): Promise<ChangedUnit[]> {
  const { work, tree, refusals } = context;
  const { source, module } = command;
  const [original, changed] = await Promise.all([
    compileKernelUnit(work, tree, command, before),
    compileKernelUnit(work, tree, command, after).catch((error: unknown) => {
      if (!(error instanceof KcareError) || error.code !== 'BUILD_TOOL_FAILED') throw error;
      refusals.add(
        'DOES_NOT_COMPILE',
        `${source} with the changes: ${error.message.split('\n').slice(0, 4).join(' ')}`,
      );
      return undefined;
    }),
  ]);
  if (changed === undefined) return [];
  const [old, fresh] = [
    new KernelObject(await readFile(original)),
    new KernelObject(await readFile(changed)),
  ];
  const comparison = compareKernelObjects(old, fresh, refusals);
  if (comparison.changed.length + comparison.added.length === 0) return [];
  const shipped = await shippedCode(context, command, old, before);
  if (!shipped) {
    refusals.add(
      'KERNEL_NOT_PROVED',
      `the package of the kernel has no module ${module ?? ''}, of which ${source} is`,
    );
    return [];
  }
  const carried = resolveCarried(old, fresh, comparison, shipped, refusals);
  return [{ source, original, changed, ...carried, ...(module !== undefined && { module }) }];
}

async function shippedCode(
  { work, tree, image, shipped, exports }: Context,
  command: UnitCommand,
  original: KernelObject,
  text: string,
): Promise<ShippedCode | undefined> {
  const { module } = command;
  if (module === undefined) return shippedInKernel(original, shipped, exports);
  const listing = await run('find', [image.modules, '-name', '*.ko']);
  const file = listing
    .split('\n')
    .find((name) => path.basename(name, kernelModuleExtension).replaceAll('-', '_') === module);
  if (file === undefined) return undefined;
  // In a module the assembler has resolved calls within the unit already, as it does without sections for functions.
  const plain = new KernelObject(await readFile(await compileKernelUnit(work, tree, command, text, '')));
  return shippedInModule(plain, module, new KernelObject(await readFile(file)), shipped, exports);
}
