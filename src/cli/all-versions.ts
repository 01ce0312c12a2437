// One recipe for all versions that the archive has: a process for each, side by side, and one table at the end.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { exitCodes } from '../base/errors.js';
import { archiveVersions, compareVersions, defaultWorkDirectory, readRecipe } from '../build/index.js';
import { printJson, visible } from './print.js';
import { progressBar } from './progress.js';

export interface AllVersionsOptions {
  readonly cve: readonly string[];
  readonly output?: string;
  readonly work?: string;
  readonly fixedSource?: string;
  readonly force?: true;
  readonly json?: true;
  readonly jobs: number;
}

/** What `kcare-build recipe --json` prints. */
const resultShape = z.looseObject({
  outcome: z.enum(['built', 'refused', 'unchanged']).optional(),
  file: z.string().optional(),
  refusals: z.array(z.looseObject({ code: z.string(), message: z.string() })).default([]),
  versions: z.looseObject({ fixed: z.string(), substituted: z.boolean() }).optional(),
  error: z.looseObject({ code: z.string(), message: z.string() }).optional(),
});

type Printed = z.infer<typeof resultShape>;

interface Row {
  readonly version: string;
  readonly outcome: 'built' | 'refused' | 'nothing to do' | 'failed';
  /** Lines beside it: the patch file, or reasons. */
  readonly details: readonly string[];
  /** What the process of this version printed; undefined where there was none. */
  readonly printed: Printed | undefined;
}

/** Builds and prints. Returns the exit code of the worst outcome. Throws RECIPE_MALFORMED, ARCHIVE_UNAVAILABLE. */
export async function buildAllVersions(file: string, options: AllVersionsOptions): Promise<number> {
  const { recipe } = await readRecipe(file);
  const work = options.work ?? defaultWorkDirectory();
  const versions = await archiveVersions(work, recipe.package);
  const stages = new Map<string, string>();
  const bar = progressBar('versions');
  let done = 0;
  const show = (changed?: string): void => bar.show(done, versions.length, stages, changed);
  const rows = await sideBySide(versions, options.jobs, async (version): Promise<Row> => {
    const isFixed = compareVersions(version, recipe.fixed) >= 0;
    const row = isFixed
      ? alreadyFixed(version, recipe.fixed)
      : await buildVersion(file, version, options, (stage) => {
          stages.set(version, stage);
          show(version);
        });
    stages.delete(version);
    done++;
    show();
    return row;
  });
  bar.clear();
  const exitCode = worst(rows);
  if (options.json === true) printJson(toJson(rows, exitCode));
  else process.stdout.write(table(rows));
  return exitCode;
}

function alreadyFixed(version: string, fixed: string): Row {
  return {
    version,
    outcome: 'nothing to do',
    details: [`has the fixes of ${fixed} already`],
    printed: undefined,
  };
}

/** Keeps the order; never more than `limit` at once. */
async function sideBySide<Item, Result>(
  items: readonly Item[],
  limit: number,
  action: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results = new Map<number, Result>();
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) {
      const item = items[index];
      if (item !== undefined) results.set(index, await action(item));
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  return items.flatMap((_, index) => results.get(index) ?? []);
}

/** In a process of its own: correlation keeps one processor busy, and what breaks one build breaks no other. */
async function buildVersion(
  file: string,
  version: string,
  { cve, output, work, fixedSource, force }: AllVersionsOptions,
  onStage: (stage: string) => void,
): Promise<Row> {
  const parameters = [
    ...[...process.execArgv, process.argv[1] ?? '', 'recipe', '--json', '--runs', version],
    ...cve.flatMap((id) => ['--cve', id]),
    ...(output === undefined ? [] : ['--output', output]),
    ...(work === undefined ? [] : ['--work', work]),
    ...(fixedSource === undefined ? [] : ['--fixed-source', fixedSource]),
    ...(force === true ? ['--force'] : []),
    ...['--', file],
  ];
  const child = spawn(process.execPath, parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const said: string[] = [];
  createInterface(child.stderr).on('line', (line) => {
    said.push(line);
    onStage(line);
  });
  const signal = await new Promise<NodeJS.Signals | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (_, endedBy) => resolve(endedBy));
  });
  const printed = parse(text);
  if (printed) return { version, ...describe(printed), printed };
  const reason = signal === null ? (said.at(-1) ?? 'it said nothing') : `ended by ${signal}`;
  return { version, outcome: 'failed', details: [reason], printed: undefined };
}

function parse(text: string): Printed | undefined {
  try {
    return resultShape.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function describe({ outcome, file, refusals, versions, error }: Printed): Pick<Row, 'outcome' | 'details'> {
  const note =
    versions?.substituted === true ? [`fixes from ${versions.fixed}, which the archive has instead`] : [];
  switch (outcome) {
    case 'built':
      return { outcome, details: [file ?? '', ...note] };
    case 'refused':
      return { outcome, details: [...refusals.map(({ code, message }) => `${code}: ${message}`), ...note] };
    case 'unchanged':
      return { outcome: 'nothing to do', details: ['both versions give the same code', ...note] };
    default:
      return { outcome: 'failed', details: [error?.message.split('\n')[0] ?? 'no result'] };
  }
}

/** A failure says least about a version, so it is the worst. */
function worst(rows: readonly Row[]): number {
  const has = (outcome: Row['outcome']): boolean => rows.some((row) => row.outcome === outcome);
  if (has('failed')) return exitCodes.failed;
  if (has('refused')) return exitCodes.refused;
  return has('built') ? exitCodes.done : exitCodes.nothingChanged;
}

function toJson(rows: readonly Row[], exitCode: number): object {
  return {
    exitCode,
    versions: rows.map(({ version, outcome, details, printed }) => ({
      version,
      outcome,
      details,
      result: printed,
    })),
  };
}

function table(rows: readonly Row[]): string {
  const widthOf = (texts: readonly string[]): number => Math.max(0, ...texts.map(({ length }) => length));
  const versionWidth = widthOf(['VERSION', ...rows.map(({ version }) => version)]);
  const outcomeWidth = widthOf(['OUTCOME', ...rows.map(({ outcome }) => outcome)]);
  const line = (version: string, outcome: string, detail: string): string =>
    `${version.padEnd(versionWidth)}  ${outcome.padEnd(outcomeWidth)}  ${detail}`.trimEnd();
  const lines = rows.flatMap(({ version, outcome, details: [first = '', ...more] }) => [
    line(version, outcome, first),
    ...more.map((detail) => line('', '', detail)),
  ]);
  return `${[line('VERSION', 'OUTCOME', ''), ...lines].map(visible).join('\n')}\n`;
}
