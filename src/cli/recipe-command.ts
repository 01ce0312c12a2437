// `kcare-build recipe`: build the patch of a recipe, for one version or for all that the archive has.
import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { KcareError } from '../base/errors.js';
import { buildRecipe, compareVersions, type BuildResult } from '../build/index.js';
import { buildAllVersions } from './all-versions.js';
import { manualPage } from './manual-page.js';
import { outcomeExit } from './outcome-exit.js';
import { patchJson } from './patch-json.js';
import { refusalLines, refusalsJson } from './refusal-text.js';
import { collectedList } from './repeated-option.js';

interface RecipeFlags {
  readonly cve: readonly string[];
  readonly output?: string;
  readonly work?: string;
  readonly fixedSource?: string;
  readonly force?: true;
  readonly runs?: string;
  readonly allVersions?: true;
  readonly jobs?: number;
  readonly json?: true;
}

/** The command; its action throws KcareError. */
export function recipeCommand(): Command {
  return new Command('recipe')
    .description('build the cumulative patch of a recipe from the source packages of the archive')
    .argument('<file>', 'the recipe (YAML)')
    .option(
      '--cve <IDS>',
      'Only these fixes of the recipe; with commas between them, or repeated.',
      collectedList,
      [],
    )
    .option('--runs <VERSION>', 'Build for this version of the package, instead of the one in the recipe.')
    .addOption(
      new Option(
        '--all-versions',
        'Build for every version that the archive has, each a patch of its own.',
      ).conflicts('runs'),
    )
    .option('--jobs <N>', 'So many versions at once (default: as many as there are processors).', jobs)
    .option('--output <DIR>', 'Where patch files go (default: patches in the work directory).')
    .option(
      '--work <DIR>',
      'Downloads, trees and objects (default: $KCARE_WORK, or .cache/build in the package).',
    )
    .option('--fixed-source <DIR>', 'Take the fixed functions from this source tree, not from the archive.')
    .option('--force', 'Build again although nothing changed.')
    .option('--json', 'Print the result as JSON.')
    .configureHelp({ formatHelp: manualPage(page) })
    .action(buildFromRecipe);
}

const page = {
  name: 'kcare-build recipe - build the cumulative patch of a recipe from the source packages of the archive',
  synopsis: `kcare-build recipe FILE [--cve IDS] [--runs VERSION] [--fixed-source DIR] [--output DIR] [--work DIR] [--force] [--json]
kcare-build recipe FILE --all-versions [--jobs N] [--cve IDS] [--fixed-source DIR] [--output DIR] [--work DIR] [--force] [--json]`,
  description: `Fetches what FILE names: the shipped library, its source, and the source of the version with the fixes. Takes the fixed functions over, compiles, compares, finds every original function in the shipped library by its bytes, and writes one patch file. What cannot be patched soundly is refused, with all reasons at once. Nothing is installed.

With --all-versions the recipe is built for each version of the binary package that the archive has together with its source. Versions that are not older than the fixed one need nothing. Level and date of the recipe hold for every patch. Versions are built beside each other, each by a process of its own, which itself runs as many compilers as there are processors. A bar shows how far all are, where standard error is a terminal; a table at the end says what became of each.`,
  exit: `0
  Built. With --all-versions: built for every version that needs it.
1
  A tool failed, or a file is missing. With --all-versions: for at least one version.
2
  Refused; all reasons are listed. With --all-versions: for at least one version, and no tool failed.
3
  Nothing changed: both versions give the same code, or the version has the fixes already. With --all-versions: so with every version.
64
  Wrong options.`,
  examples: `kcare-build recipe recipes/debian12/openssl.yaml
kcare-build recipe --cve CVE-2025-9230,CVE-2025-9232 recipes/debian12/openssl.yaml
kcare-build recipe --all-versions --jobs 4 --output patches recipes/debian12/openssl.yaml`,
};

function jobs(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw new InvalidArgumentError('It is not a number of versions.');
  return Number(text);
}

async function buildFromRecipe(file: string, flags: RecipeFlags): Promise<void> {
  if (flags.allVersions === true) {
    process.exitCode = await buildAllVersions(file, { ...flags, jobs: flags.jobs ?? availableParallelism() });
    return;
  }
  if (flags.jobs !== undefined) throw new KcareError('USAGE', '--jobs belongs to --all-versions.');
  const progress = stageTimer();
  const result = await buildRecipe(file, {
    cves: flags.cve,
    force: flags.force === true,
    onProgress: progress.begin,
    ...(flags.runs === undefined ? {} : { runs: flags.runs }),
    ...(flags.work === undefined ? {} : { work: flags.work }),
    ...(flags.output === undefined ? {} : { output: flags.output }),
    ...(flags.fixedSource === undefined ? {} : { fixedSource: flags.fixedSource }),
  });
  progress.end();
  process.stdout.write(flags.json === true ? `${JSON.stringify(toJson(result))}\n` : describe(result));
  process.exitCode = outcomeExit[result.outcome];
}

/** One line on standard error for each stage; with its seconds when that is a terminal. */
function stageTimer(): { begin: (stage: string) => void; end: () => void } {
  let current: { stage: string; started: number } | undefined;
  const end = (): void => {
    if (current === undefined || !process.stderr.isTTY) return;
    process.stderr.write(`  ${((performance.now() - current.started) / 1000).toFixed(1)} s\n`);
  };
  return {
    begin: (stage) => {
      end();
      current = { stage, started: performance.now() };
      process.stderr.write(`${stage}${process.stderr.isTTY ? ' …' : '\n'}`);
    },
    end,
  };
}

function toJson({ outcome, file, patch, refusals, object, versions }: BuildResult): object {
  return {
    outcome,
    file,
    buildId: patch?.buildId,
    ...patchJson(patch),
    refusals: refusalsJson(refusals),
    object,
    versions,
  };
}

function describe({ outcome, file, patch, refusals, versions }: BuildResult): string {
  const lines: string[] = [];
  if (versions.substituted) {
    lines.push(
      `The archive no longer holds the versions of the recipe. Taken instead: ${versions.runs}, fixes from ${versions.fixed}.`,
    );
  }
  if (outcome === 'unchanged') lines.push(unchanged(versions));
  if (outcome === 'refused') lines.push('Refused, no patch was made:');
  lines.push(...refusalLines(refusals, '  '));
  if (patch && file !== undefined) {
    const { metadata, hunks, buildId } = patch;
    lines.push(
      file,
      `  ${metadata.objectName} of ${metadata.package} ${metadata.packageVersion}, build-id ${buildId}, level ${metadata.level}`,
      ...hunks.map(
        ({ kind, name, address, size }) => `  ${kind} ${name} at 0x${address.toString(16)}, ${size} bytes`,
      ),
      `  ${metadata.cves.map(({ id }) => id).join(' ')}`,
    );
  }
  return `${lines.join('\n')}\n`;
}

function unchanged({ runs, fixed }: BuildResult['versions']): string {
  return compareVersions(runs, fixed) < 0
    ? 'Nothing changed: both versions give the same code.'
    : `Nothing to do: ${runs} has the fixes of ${fixed} already.`;
}
