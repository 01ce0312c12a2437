// What the last run said about processes that it left behind: a note beside the truth, which is in the processes.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { KcareError } from '../base/errors.js';
import { readSafeFile, safeDirectory, writeAtomically } from '../base/safe-files.js';
import { integer, list, record, ShapeError, text, textThat, utcTime, type Shaped } from '../base/shapes.js';
import { readStartTime } from '../proc/index.js';
import { isLeftBehind, type ProcessOutcome } from './outcome.js';

const entryShape = record({
  pid: integer(1),
  /** With the pid, the name of the process for good: clock ticks from boot to its start. */
  start: textThat((value) => /^\d{1,20}$/.test(value), 'a number of clock ticks'),
  /** When the process was first left behind, and when last; ISO 8601. */
  since: utcTime,
  last: utcTime,
  result: text(32),
  code: text(64),
  message: text(4096),
  /** "" for an unload. */
  patchset: text(64),
});

const fileShape = record({ version: integer(1, 1), processes: list(entryShape, 1_000_000) });

export type OutcomeRecord = Shaped<typeof entryShape>;

export interface RecordOptions {
  /** The patchset that was to be applied; "" for an unload. */
  readonly patchset: string;
  readonly now: Date;
  /** Patches that were taken out leave processes that wait for them again. */
  readonly isUnload?: boolean;
}

/**
 * By pid; only of processes that still live. A missing or damaged file counts as empty: what it says can be found out
 * again by an update. Throws UNSAFE_MODE (R10).
 */
export async function readOutcomes(path: string): Promise<ReadonlyMap<number, OutcomeRecord>> {
  if (!existsSync(path)) return new Map();
  await safeDirectory(dirname(path));
  const entries = parseOutcomes(await readSafeFile(path));
  return new Map(entries.filter(isSameProcess).map((entry) => [entry.pid, entry]));
}

/**
 * Notes what became of the processes of a run: those left behind with the reason, all others not at all. Notes of
 * other living processes stay. The caller holds the agent's lock.
 */
export async function recordOutcomes(
  path: string,
  outcomes: readonly ProcessOutcome[],
  options: RecordOptions,
): Promise<void> {
  await safeDirectory(dirname(path));
  const before = await readOutcomes(path);
  const after = new Map(before);
  for (const outcome of outcomes) {
    after.delete(outcome.pid);
    const entry = entryOf(outcome, before.get(outcome.pid), options);
    if (entry) after.set(entry.pid, entry);
  }
  if (before.size === 0 && after.size === 0) return;
  const contents = { version: 1, processes: [...after.values()] };
  await writeAtomically(path, Buffer.from(`${JSON.stringify(contents)}\n`));
}

function entryOf(
  outcome: ProcessOutcome,
  before: OutcomeRecord | undefined,
  { patchset, now, isUnload }: RecordOptions,
): OutcomeRecord | undefined {
  const isUnloaded = isUnload === true && outcome.result === 'unloaded';
  if (!isUnloaded && (isUnload === true || !isLeftBehind(outcome))) return undefined;
  const start = startOf(outcome.pid);
  if (start === undefined) return undefined;
  const last = now.toISOString();
  return {
    pid: outcome.pid,
    start,
    since: before && !isUnloaded ? before.since : last,
    last,
    result: outcome.result,
    code: outcome.error?.code ?? '',
    message: (outcome.error?.message ?? '').slice(0, 4096),
    patchset,
  };
}

/** Of any bytes; a file that makes no sense is empty. */
export function parseOutcomes(bytes: Uint8Array): readonly OutcomeRecord[] {
  try {
    return fileShape(JSON.parse(Buffer.from(bytes).toString('utf8'))).processes;
  } catch (thrown) {
    if (thrown instanceof SyntaxError || thrown instanceof ShapeError) return [];
    throw thrown;
  }
}

function isSameProcess({ pid, start }: OutcomeRecord): boolean {
  return startOf(pid) === start;
}

function startOf(pid: number): string | undefined {
  try {
    return String(readStartTime(pid));
  } catch (thrown) {
    if (thrown instanceof KcareError && ['TARGET_GONE', 'NOT_PERMITTED'].includes(thrown.code))
      return undefined;
    throw thrown;
  }
}
