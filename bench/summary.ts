// Medians of samples, their ratios to a base, and the table that shows them beside what is aimed at.
import type { Sample } from './measure.js';

export interface Row {
  readonly scenario: string;
  readonly repetitions: number;
  readonly median: Sample;
  /** Each median divided by that of the first scenario. */
  readonly ratio: Sample;
}

/** What is measured, its name, and the aim. */
const lines: readonly (readonly [keyof Sample, string, string])[] = [
  ['runningPauseUs', 'running thread stood, µs', '≤ 100'],
  ['longestPauseUs', 'any thread stood, µs', '≤ 10000, 100 threads'],
  ['seenGapUs', 'gap that it saw itself, µs', ''],
  ['targetsMs', 'work on all targets, ms', ''],
  ['commandMs', 'whole command, ms', '≤ 250, 200 proc.'],
  ['commandMs', '', '≤ 1500, 1000 proc.'],
  ['agentCpuMs', 'processor time of it, ms', ''],
  ['agentMib', 'resident size of it, MiB', ''],
  ['requests', 'ptrace requests per target', ''],
  ['targetCpuUs', 'time of idle threads, µs', ''],
  ['addedKib', 'added to a target, KiB', ''],
];

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

function mapSample(compute: (key: keyof Sample) => number): Sample {
  return {
    runningPauseUs: compute('runningPauseUs'),
    longestPauseUs: compute('longestPauseUs'),
    seenGapUs: compute('seenGapUs'),
    targetsMs: compute('targetsMs'),
    commandMs: compute('commandMs'),
    agentCpuMs: compute('agentCpuMs'),
    agentMib: compute('agentMib'),
    requests: compute('requests'),
    targetCpuUs: compute('targetCpuUs'),
    addedKib: compute('addedKib'),
  };
}

export function summarize(scenario: string, samples: readonly Sample[], base: Row | undefined): Row {
  const medians = mapSample((key) => median(samples.map((sample) => sample[key])));
  const ratio = mapSample((key) => medians[key] / (base?.median ?? medians)[key]);
  return { scenario, repetitions: samples.length, median: medians, ratio };
}

const short = (value: number): string => value.toFixed(value < 100 ? 1 : 0);

function cell(row: Row, key: keyof Sample): string {
  const value = row.median[key];
  if (Number.isNaN(value)) return '-';
  const ratio = row.ratio[key];
  return Number.isFinite(ratio) && ratio !== 1 ? `${short(value)} ×${short(ratio)}` : short(value);
}

/** One line for each quantity, at most 120 columns wide: medians, with ratios to the first scenario. */
export function formatTable(rows: readonly Row[]): string {
  const head = ['medians (× first)', 'aim', ...rows.map(({ scenario }) => scenario)];
  const body = lines.map(([key, title, aim]) => [
    title,
    aim,
    ...rows.map((row) => (title === '' ? '' : cell(row, key))),
  ]);
  const widths = head.map((_, index) =>
    Math.max(...[head, ...body].map((line) => (line[index] ?? '').length)),
  );
  return [head, ...body]
    .map((line) =>
      line
        .map((text, index) => text.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
