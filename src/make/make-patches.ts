// Source patches → one patch file for each deliverable of a project: the stages of libcare-patch-make in their order.
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { isLinkTimeOptimized } from '../build/compile.js';
import { builderName, writeWhole } from '../build/result-cache.js';
import type { Refusal } from '../build/result.js';
import { buildIdOf, parseElf } from '../elf/index.js';
import { fileExtension, writePatch, type Patch } from '../patchfile/index.js';
import {
  cleanCommand,
  defaultCommand,
  makeCompilerDirectory,
  recordingEnvironment,
} from './build-commands.js';
import {
  affectedUnits,
  compileOriginals,
  compilePatched,
  type AffectedUnit,
  type PatchedUnit,
} from './changed-units.js';
import { patchDeliverable, type ChangedUnit, type DeliverableResult } from './deliverable.js';
import { readRecords, sourceOf, type BuildRecords, type RecordedLink } from './records.js';
import { SavedTree } from './saved-tree.js';
import {
  applyPatches,
  cvesOf,
  describePatches,
  keepLineNumbersOf,
  readSourcePatches,
  type SourcePatch,
} from './source-patches.js';
import { lastLines, runTool } from './tools.js';
import { workDirectories, workPlace, type WorkPlace } from './work-place.js';

export interface MakeOptions {
  /** Patch files, in their order. */
  readonly patches: readonly string[];
  /** Where the build command runs, and where it is called. */
  readonly buildDirectory: string;
  /** Where the patches are applied. */
  readonly sourceDirectory: string;
  /** Where the patch files go. */
  readonly output: string;
  /** Shell command; found from the directory when absent. */
  readonly command?: string | undefined;
  /** Remove what earlier runs and builds left, first. */
  readonly clean: boolean;
  /** Take the original build as it was recorded, without building it. */
  readonly update: boolean;
  /** File names of the deliverables that matter; all when empty. */
  readonly only: readonly string[];
  readonly level: number;
  readonly package?: string | undefined;
  readonly packageVersion?: string | undefined;
  /** Show what the build prints. */
  readonly verbose: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (message: string) => void;
}

export interface MadeDeliverable {
  /** Of the sources' directory where it lies there. */
  readonly name: string;
  readonly buildId: string;
  readonly outcome: 'built' | 'refused';
  readonly refusals: readonly Refusal[];
  /** Whole path of the patch file; absent unless all deliverables are built. */
  readonly file?: string;
  readonly patch?: Patch;
}

export interface MakeResult {
  readonly outcome: 'built' | 'refused' | 'unchanged' | 'cleaned';
  readonly deliverables: readonly MadeDeliverable[];
  /** Reasons that belong to no deliverable. */
  readonly refusals: readonly Refusal[];
  /** What the user should know although it stops nothing. */
  readonly notes: readonly string[];
}

/**
 * Builds the project, then builds it patched, puts its files back, and makes the patches. Refusals are a result; thrown
 * are FILE_MISSING, USAGE, NOTHING_RECORDED, SOURCE_PATCH_REJECTED and BUILD_TOOL_FAILED. Whatever happens, the
 * project's files are those from before; a run that was killed is undone by the next.
 */
export async function makePatches(options: MakeOptions): Promise<MakeResult> {
  const place = workPlace(options.buildDirectory, options.sourceDirectory);
  const tell = options.onProgress ?? (() => undefined);
  if (await SavedTree.recover(place.saved)) tell('putting back the files of a run that was interrupted');
  const patches = await readSourcePatches(options.patches, options.buildDirectory);
  const notes: string[] = [];
  if (options.clean) await clean(options, place, tell, notes);
  const nothing = { deliverables: [], refusals: [], notes };
  if (patches.length === 0) return { outcome: 'cleaned', ...nothing };
  const records = await buildOriginal(options, place, tell);
  const { units, refusals } = await changedUnits(options, place, patches, records, tell, notes);
  tell(`comparing ${count(units.length, 'changed unit')}, finding them in what was linked`);
  const results = await patchAll(options, place, patches, records, units);
  return await finish(options, place, results, units, notes, refusals);
}

const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`;

async function clean(
  options: MakeOptions,
  place: WorkPlace,
  tell: (message: string) => void,
  notes: string[],
): Promise<void> {
  const build = options.command ?? defaultCommand(place.build);
  const command = cleanCommand(build);
  if (command === undefined) {
    notes.push(`How to clean after "${build}" is not known; only what kcare recorded was removed.`);
  } else {
    tell(command);
    await runBuild(command, options, place, {}, 'remove the objects by hand, then run again without --clean');
  }
  for (const directory of workDirectories(place)) await rm(directory, { recursive: true, force: true });
}

async function runBuild(
  command: string,
  { verbose, signal }: MakeOptions,
  { build }: WorkPlace,
  environment: Readonly<Record<string, string>>,
  advice: string,
): Promise<void> {
  const result = await runTool('sh', ['-c', command], {
    directory: build,
    environment,
    shown: verbose,
    signal,
  });
  if (result.status === 0) return;
  const output = verbose ? '' : `:\n${lastLines(result)}`;
  throw new KcareError(
    'BUILD_TOOL_FAILED',
    `"${command}" ended with status ${result.status} in ${build} (${advice})${output}`,
  );
}

/** The project's own build, of which everything that it compiles and links is recorded. */
async function buildOriginal(
  options: MakeOptions,
  place: WorkPlace,
  tell: (message: string) => void,
): Promise<BuildRecords> {
  const command = options.command ?? defaultCommand(place.build);
  await makeCompilerDirectory(place.compilers);
  if (!options.update) {
    tell(`building the project as it is: ${command}`);
    const environment = recordingEnvironment(place.compilers, place.records);
    await runBuild(command, options, place, environment, 'the unpatched project does not build');
  }
  const directories = workDirectories(place).map((directory) => path.join(directory, 'records'));
  const records = readRecords(directories);
  if (records.compiles.length > 0 && records.links.length > 0) return records;
  const what = records.compiles.length > 0 ? 'link' : 'compile';
  throw new KcareError('NOTHING_RECORDED', `"${command}" did not ${what} anything through libcare-cc.`);
}

async function changedUnits(
  options: MakeOptions,
  place: WorkPlace,
  patches: readonly SourcePatch[],
  records: BuildRecords,
  tell: (message: string) => void,
  notes: string[],
): Promise<{ units: readonly ChangedUnit[]; refusals: readonly Refusal[] }> {
  const command = options.command ?? defaultCommand(place.build);
  const nameOf = namer(place);
  let patched: readonly PatchedUnit[];
  const refusals: Refusal[] = [];
  const saved = await SavedTree.save([place.build, place.sources], place.saved, [options.output]);
  try {
    tell(`applying ${patches.map(({ file }) => path.basename(file)).join(', ')}`);
    await applyPatches(patches, place.sources);
    const changedFiles = saved.changedFiles();
    if (changedFiles.length === 0)
      throw new KcareError('SOURCE_PATCH_REJECTED', `The patches change no file in ${place.sources}.`);
    tell(`building the patched project: ${command}`);
    await rm(place.patchedRecords, { recursive: true, force: true });
    await mkdir(place.patchedRecords, { recursive: true });
    const environment = recordingEnvironment(place.compilers, place.patchedRecords);
    await runBuild(
      command,
      options,
      place,
      environment,
      'the patched project does not build; its files are as before',
    );
    const { units, added } = await affectedUnits(records, readRecords([place.patchedRecords]), changedFiles);
    for (const compile of added) {
      const file = nameOf(sourceOf(compile));
      const message = `${file} is compiled only with the patches; put its functions into a file that exists`;
      refusals.push({ code: 'NEW_SOURCE', message });
    }
    refusals.push(...linkTimeRefusals(units, nameOf));
    if (refusals.length > 0) return { units: [], refusals };
    noteUnusedFiles(changedFiles, units, nameOf, notes);
    noteOtherFlags(units, nameOf, notes);
    tell(`compiling ${count(units.length, 'unit')} again, function by function`);
    await keepLineNumbersOf(changedFiles, saved);
    patched = await compilePatched(units, place.objects);
  } finally {
    await saved.restore();
  }
  const { changed, typeProblems } = await compileOriginals(patched, nameOf);
  for (const { message } of typeProblems) refusals.push({ code: 'CHANGED_TYPE', message });
  return { units: changed, refusals };
}

function linkTimeRefusals(units: readonly AffectedUnit[], nameOf: (file: string) => string): Refusal[] {
  const affected = units.filter(({ before, after }) =>
    [before, after].some(({ flags }) => isLinkTimeOptimized(flags)),
  );
  const files = new Set(affected.map(({ before }) => nameOf(sourceOf(before))));
  return [...files].map((file) => ({
    code: 'LINK_TIME_OPTIMIZATION',
    message: `${file} is compiled with -flto`,
  }));
}

/** A patched source of which nothing was compiled may be a mistake: a file of another system, a wrong directory. */
function noteUnusedFiles(
  changedFiles: readonly string[],
  units: readonly AffectedUnit[],
  nameOf: (file: string) => string,
  notes: string[],
): void {
  const used = new Set(units.map(({ before }) => sourceOf(before)));
  for (const file of changedFiles) {
    if (/\.(?:c|cc|cpp|cxx|C|s|S)$/.test(file) && !used.has(file))
      notes.push(`${nameOf(file)} is patched, but this build does not compile it.`);
  }
}

/** Most likely the recorded build was made by another command: the same differences would be everywhere. */
function noteOtherFlags(
  units: readonly AffectedUnit[],
  nameOf: (file: string) => string,
  notes: string[],
): void {
  const other = units.find(({ before, after }) => before.flags.join('\0') !== after.flags.join('\0'));
  if (!other) return;
  const { before, after } = other;
  const differ = [...before.flags, ...after.flags].filter(
    (flag) => before.flags.includes(flag) !== after.flags.includes(flag),
  );
  notes.push(
    `${nameOf(sourceOf(before))} and perhaps others are not compiled as recorded (${[...new Set(differ)].join(' ')}); if the patches do not change that, name the command of the recorded build by --build.`,
  );
}

/** Short names for people: relative to the sources, or to the build, or whole. */
function namer({ sources, build }: WorkPlace): (file: string) => string {
  return (file) => {
    const root = [sources, build].find((directory) => file.startsWith(`${directory}/`));
    return root === undefined ? file : path.relative(root, file);
  };
}

async function patchAll(
  { level, package: name, packageVersion, only }: MakeOptions,
  place: WorkPlace,
  patches: readonly SourcePatch[],
  { compiles, links }: BuildRecords,
  units: readonly ChangedUnit[],
): Promise<DeliverableResult[]> {
  const facts = {
    level,
    description: describePatches(patches),
    cves: cvesOf(patches),
    package: name ?? path.basename(place.sources),
    packageVersion: packageVersion ?? '',
    fixedVersion: '',
    date:
      patches
        .map(({ date }) => date)
        .sort()
        .at(-1) ?? '',
    builder: builderName(),
  };
  const results = new Map<string, DeliverableResult>();
  for (const link of links) {
    if (only.length > 0 && !only.includes(path.basename(link.output))) continue;
    if (!(await isCurrent(link))) continue;
    const result = await patchDeliverable(link, { units, compiles, links, nameOf: namer(place), facts });
    if (result) results.set(result.buildId, result);
  }
  return [...results.values()];
}

/** Whether a link left a program or library, and the project still has it. Throws NOTHING_RECORDED when it has another. */
async function isCurrent({ linked, output }: RecordedLink): Promise<boolean> {
  if (!existsSync(linked)) return false;
  const recorded = parseElf(await readFile(linked));
  if (recorded.type !== 2 && recorded.type !== 3) return false;
  if (!existsSync(output)) return true;
  const bytes = await readFile(output);
  if (bytes.readUInt32BE(0) !== 0x7f454c46 || buildIdOf(parseElf(bytes)) === buildIdOf(recorded)) return true;
  throw new KcareError('NOTHING_RECORDED', `${output} was linked again without being recorded.`);
}

async function finish(
  { output }: MakeOptions,
  place: WorkPlace,
  results: readonly DeliverableResult[],
  units: readonly ChangedUnit[],
  notes: string[],
  refusals: readonly Refusal[],
): Promise<MakeResult> {
  const nameOf = namer(place);
  const fileOf = (buildId: string): string => path.join(output, `${buildId}${fileExtension}`);
  // What an earlier run made from other patches must not be taken for the result of this one.
  for (const { buildId } of results) await rm(fileOf(buildId), { force: true });
  // Of a link that left no map, nobody knows what it holds.
  if (results.every((result) => result.refusals.every(({ code }) => code !== 'LINK_UNKNOWN'))) {
    const held = new Set(results.flatMap((result) => result.units.map(({ file }) => file)));
    const unused = new Set(units.map(({ file }) => file).filter((file) => !held.has(file)));
    for (const file of unused)
      notes.push(`${file} changes, but nothing that was linked and recorded holds it.`);
  }
  const outcome = refusals.length > 0 ? 'refused' : outcomeOf(results, units);
  const deliverables = await Promise.all(
    results.map(async ({ output: linked, buildId, patch, ...result }): Promise<MadeDeliverable> => {
      const made = { name: nameOf(linked), buildId, outcome: result.outcome, refusals: result.refusals };
      if (outcome !== 'built' || !patch) return made;
      const file = fileOf(buildId);
      await writeWhole(file, writePatch(patch));
      return { ...made, file, patch };
    }),
  );
  return { outcome, deliverables, refusals, notes };
}

/** One refused deliverable refuses all: a fix in a library without its half in the program would be no fix. */
function outcomeOf(
  results: readonly DeliverableResult[],
  units: readonly ChangedUnit[],
): 'built' | 'refused' | 'unchanged' {
  if (units.length === 0) return 'unchanged';
  const isBuilt = results.length > 0 && results.every(({ outcome }) => outcome === 'built');
  return isBuilt ? 'built' : 'refused';
}
