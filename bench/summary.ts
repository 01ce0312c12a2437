// Medians of samples, their ratios to a base, and the table that shows them.
import type { Sample } from './measure.js';

export interface Row {
  readonly scenario: string;
  readonly repetitions: number;
  readonly median: Sample;
  /** Each median divided by that of the first scenario. */
  readonly ratio: Sample;
}

const columns: readonly (readonly [keyof Sample, string])[] = [
  ['runningPauseUs', 'running thread, µs'],
  ['longestPauseUs', 'any thread, µs'],
  ['seenGapUs', 'gap seen inside, µs'],
  ['targetsMs', 'in targets, ms'],
  ['commandMs', 'whole command, ms'],
  ['agentMib', 'agent, MiB'],
  ['addedKib', 'added to a target, KiB'],
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
    agentMib: compute('agentMib'),
    addedKib: compute('addedKib'),
  };
}

export function summarize(scenario: string, samples: readonly Sample[], base: Row | undefined): Row {
  const medians = mapSample((key) => median(samples.map((sample) => sample[key])));
  const ratio = mapSample((key) => medians[key] / (base?.median ?? medians)[key]);
  return { scenario, repetitions: samples.length, median: medians, ratio };
}

function cell(row: Row, key: keyof Sample): string {
  const value = row.median[key];
  if (Number.isNaN(value)) return '-';
  const ratio = row.ratio[key];
  const shown = value.toFixed(value < 100 ? 1 : 0);
  return Number.isFinite(ratio) ? `${shown} (×${ratio.toFixed(1)})` : shown;
}

/** Medians with ratios to the first row in brackets. */
export function formatTable(rows: readonly Row[]): string {
  const head = ['medians (× first row)', ...columns.map(([, title]) => title)];
  const body = rows.map((row) => [row.scenario, ...columns.map(([key]) => cell(row, key))]);
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
