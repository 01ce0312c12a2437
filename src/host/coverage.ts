// For every process that could be patched: is it, and if not, why not and since when. One judgement for all who ask.
import { asKcareError } from '../base/errors.js';
import { inspect, type AppliedImage } from '../engine/index.js';
import { mappedObjects, readStartDate, type MappedObject } from '../proc/index.js';
import { Blacklist, type BlacklistRule } from './blacklist.js';
import { chosenPids, commandOf, executableOf, type UnreadableProcess } from './discover.js';
import type { OutcomeRecord } from './outcome-records.js';
import type { PatchedObject } from './outcome.js';

/**
 * `patched`: every patch for its objects is in effect. `pending`: one is not, and a later run can bring it. `excluded`:
 * one is not, and the blacklist forbids it. `unpatchable`: one is not, and this process and this patch do not go
 * together. `not-needed`: it runs an object of a name that is patched, in a build for which there is no patch.
 */
export const coverageStates = ['patched', 'pending', 'excluded', 'unpatchable', 'not-needed'] as const;
export type CoverageState = (typeof coverageStates)[number];

/** A patch that a verified feed holds. */
export interface KnownPatch {
  readonly buildId: string;
  readonly level: number;
  readonly objectName: string;
}

/** What the chosen patchset of the feed could patch. */
export interface KnownPatches {
  readonly patchset: string;
  /** When the patchset was released; undefined when that is not known. */
  readonly released: Date | undefined;
  readonly patches: readonly KnownPatch[];
}

export interface ProcessCoverage {
  readonly pid: number;
  /** As ps shows it; may be "". */
  readonly comm: string;
  /** Path of the program in its own mount namespace; "" when unknown. */
  readonly executable: string;
  readonly state: CoverageState;
  /** What is in the process, as its own memory tells. */
  readonly images: readonly AppliedImage[];
  /** Patches that should be in effect and are not, with the level that they would bring. */
  readonly missing: readonly PatchedObject[];
  /** Why it is in this state, one sentence; "" for `patched`. */
  readonly reason: string;
  /** The error of the last attempt, a code of docs/errors.md; absent without one. */
  readonly code?: string;
  /** Since when patches are missing; absent when none are. */
  readonly since?: Date;
  /** The line of the blacklist that forbids it; with `excluded`. */
  readonly rule?: BlacklistRule;
}

export interface CoverageOptions {
  /** Only these; absent = all. */
  readonly pids?: readonly number[] | undefined;
  /** Absent: nothing is known of any feed, so that only processes with patches are listed. */
  readonly known?: KnownPatches | undefined;
  readonly blacklist?: Blacklist | undefined;
  /** By pid: what the last run noted (readOutcomes). */
  readonly outcomes?: ReadonlyMap<number, OutcomeRecord> | undefined;
  /** Why nothing is patched at present, one sentence; absent when an update patches processes. */
  readonly heldBack?: string | undefined;
}

/** Judges every process; those that nothing concerns are left out. Only reads; needs no network. */
export function surveyCoverage(options: CoverageOptions = {}): {
  readonly processes: readonly ProcessCoverage[];
  readonly unreadable: readonly UnreadableProcess[];
} {
  const judge = coverageJudge(options);
  const processes: ProcessCoverage[] = [];
  const unreadable: UnreadableProcess[] = [];
  for (const pid of chosenPids(options.pids)) {
    try {
      const coverage = judge(pid);
      if (coverage) processes.push(coverage);
    } catch (thrown) {
      const error = asKcareError(thrown);
      // A process that ended since the listing is no news (R11), one that the user named is.
      if (error.code === 'TARGET_GONE' && !options.pids) continue;
      unreadable.push({ pid, comm: commandOf(pid), error });
    }
  }
  return { processes, unreadable };
}

/** How many processes are in each state. */
export function countStates(
  processes: readonly Pick<ProcessCoverage, 'state'>[],
): Readonly<Record<CoverageState, number>> {
  const counts = { patched: 0, pending: 0, excluded: 0, unpatchable: 0, 'not-needed': 0 };
  for (const { state } of processes) counts[state] += 1;
  return counts;
}

/**
 * A function that judges one process; undefined when nothing concerns it. It throws the errors of reading a process:
 * TARGET_GONE, NOT_PERMITTED, HEADER_MALFORMED.
 */
export function coverageJudge(
  options: Omit<CoverageOptions, 'pids'> = {},
): (pid: number) => ProcessCoverage | undefined {
  const { known, blacklist = Blacklist.empty } = options;
  const patches = new Map(known?.patches.map((patch) => [patch.buildId, patch]));
  const names = new Set(known?.patches.map(({ objectName }) => objectName));
  return (pid) => {
    const images = inspect(pid);
    const objects = known ? mappedObjects(pid).filter(({ executable }) => executable) : [];
    const missing = missingPatches(objects, images, patches);
    const found = { pid, comm: commandOf(pid), executable: executableOf(pid), images, missing };
    if (missing.length > 0) {
      const rule = blacklist.match(found.executable);
      const since = sinceWhen(pid, options);
      if (rule) return { ...found, state: 'excluded', reason: ruleText(rule), since, rule };
      return { ...found, ...whyMissing(found, options), since };
    }
    if (images.length > 0) return { ...found, state: 'patched', reason: '' };
    const namesake = objects.find(({ name }) => names.has(name));
    if (!namesake) return undefined;
    const reason = `Patchset ${known?.patchset ?? ''} has no patch for its build of ${namesake.name}.`;
    return { ...found, state: 'not-needed', reason };
  };
}

/** Patches of the feed for objects of the process that are not in effect, and interrupted changes. */
function missingPatches(
  objects: readonly MappedObject[],
  images: readonly AppliedImage[],
  patches: ReadonlyMap<string, KnownPatch>,
): PatchedObject[] {
  const missing = new Map<string, PatchedObject>();
  for (const { objectName, buildId, level, state } of images) {
    if (state !== 'active') missing.set(buildId, { objectName, buildId, level });
  }
  for (const { buildId, name, deleted } of objects) {
    const patch = patches.get(buildId);
    if (!patch) continue;
    const isInEffect = images.some(
      (image) => image.buildId === buildId && image.state === 'active' && image.level >= patch.level,
    );
    const objectName = deleted ? `${name} (deleted)` : name;
    if (!isInEffect) missing.set(buildId, { objectName, buildId, level: patch.level });
  }
  return [...missing.values()];
}

function whyMissing(
  { pid, images, missing }: Pick<ProcessCoverage, 'pid' | 'images' | 'missing'>,
  { known, outcomes, heldBack }: CoverageOptions,
): Pick<ProcessCoverage, 'state' | 'reason' | 'code'> {
  if (images.some(({ state }) => state !== 'active'))
    return { state: 'pending', reason: 'An interrupted change waits for the next update or unload.' };
  const last = outcomes?.get(pid);
  if (last?.result === 'unloaded')
    return { state: 'pending', reason: `Its patches were taken out at ${last.last}.` };
  // What was said of another patchset need not hold for this one.
  if (last && last.patchset === known?.patchset) {
    const state = last.result === 'refused' ? 'unpatchable' : 'pending';
    const reason = sentence(last.message === '' ? last.result : last.message);
    return { state, reason, ...(last.code !== '' && { code: last.code }) };
  }
  if (heldBack !== undefined) return { state: 'pending', reason: heldBack };
  const older = missing.flatMap(({ objectName, buildId, level }) => {
    const image = images.find((one) => one.buildId === buildId);
    return image ? [`level ${image.level} of ${objectName} is applied, level ${level} is not`] : [];
  });
  if (older.length > 0) return { state: 'pending', reason: sentence(older.join(', ')) };
  return { state: 'pending', reason: 'No update has come to it yet.' };
}

/** The last run's word, or else the moment from which on the process and the patch were both there. */
function sinceWhen(pid: number, { known, outcomes }: CoverageOptions): Date {
  const last = outcomes?.get(pid);
  if (last) return new Date(last.since);
  const started = readStartDate(pid);
  const { released } = known ?? {};
  return released && released > started ? released : started;
}

function ruleText({ text, reason, line, file }: BlacklistRule): string {
  const why = reason === '' ? '' : ` (${reason})`;
  return `Blacklisted by "${text}"${why}, line ${line} of ${file}.`;
}

function sentence(text: string): string {
  const whole = `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
  return whole.endsWith('.') ? whole : `${whole}.`;
}
