// `kcare-build`: make patches from recipes, and publish them.
import { Command } from 'commander';
import { exitCodes } from '../base/errors.js';
import { buildRecipe, type BuildResult } from '../build/index.js';
import { publishCommand } from './publish-command.js';
import { exitCodeOf } from './run-program.js';

interface RecipeFlags {
  readonly cve: readonly string[];
  readonly output?: string;
  readonly work?: string;
  readonly force?: true;
  readonly json?: true;
}

const outcomeExit = {
  built: exitCodes.done,
  refused: exitCodes.refused,
  unchanged: exitCodes.nothingChanged,
} as const satisfies Record<BuildResult['outcome'], number>;

const recipe = new Command('recipe')
  .description('build the cumulative patch of a recipe from the source packages of the archive')
  .argument('<file>', 'the recipe (YAML)')
  .option('--cve <id...>', 'only these fixes of the recipe; repeatable', [])
  .option('--output <directory>', 'where the patch file goes (default: patches in the work directory)')
  .option('--work <directory>', 'downloads, trees and objects (default: $KCARE_WORK or .cache/build)')
  .option('--force', 'build again although nothing changed')
  .option('--json', 'print the result as JSON')
  .addHelpText(
    'after',
    '\nExit status: 0 built, 1 a tool failed, 2 refused (all reasons are listed), 3 nothing changed.',
  )
  .action(buildFromRecipe);

async function buildFromRecipe(file: string, flags: RecipeFlags): Promise<void> {
  const progress = stageTimer();
  const result = await buildRecipe(file, {
    cves: flags.cve,
    force: flags.force === true,
    onProgress: progress.begin,
    ...(flags.work === undefined ? {} : { work: flags.work }),
    ...(flags.output === undefined ? {} : { output: flags.output }),
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
    level: patch?.metadata.level,
    cves: patch?.metadata.cves.map(({ id }) => id),
    hunks: patch?.hunks.map(({ kind, name, address, size, replacement }) => ({
      kind,
      name,
      address,
      size,
      replacement,
    })),
    proof: patch?.metadata.proof,
    refusals,
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
  if (outcome === 'unchanged') lines.push('Nothing changed: both versions give the same code.');
  if (outcome === 'refused') lines.push('Refused, no patch was made:');
  for (const { code, message } of refusals) lines.push(`  ${code}: ${message}`);
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

const program = new Command('kcare-build')
  .description('make patches for running processes')
  .addCommand(recipe)
  .addCommand(publishCommand())
  .exitOverride();
for (const command of program.commands) command.exitOverride();

process.exitCode = await exitCodeOf('kcare-build', async () => {
  await program.parseAsync();
  return Number(process.exitCode ?? exitCodes.done);
});
