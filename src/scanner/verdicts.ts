// What a survey of all processes means for each vulnerability: it counts as fixed only where nothing speaks against it.
import type { PatchEntry } from '../feed/index.js';
import type { KnownFixes } from './known-fixes.js';
import { isNewerThan, type Survey, type SurveyedObject, type SurveyedProcess } from './survey.js';

/**
 * - `not-patched`: the process runs the old code; nothing is known to keep it from being patched.
 * - `older-level`: it is patched, by a patch without this fix.
 * - `interrupted`: a change was begun and is not finished; the next update finishes it.
 * - `excluded`: the blacklist forbids patching it.
 * - `unknown-build`: it maps the library in a build for which there is no patch, and which is not known to have the fix.
 * - `unreadable`: the process could not be examined.
 */
export type Hindrance =
  'not-patched' | 'older-level' | 'interrupted' | 'excluded' | 'unknown-build' | 'unreadable';

/** A process that keeps a vulnerability from counting as fixed. */
export interface LeftBehind {
  readonly pid: number;
  readonly comm: string;
  readonly reason: Hindrance;
  /** One sentence. */
  readonly detail: string;
  /** Absent for a process that could not be examined. */
  readonly object?: SurveyedObject;
}

export interface CveVerdict {
  readonly cve: string;
  /** The patches of the feed that fix it. */
  readonly entries: readonly PatchEntry[];
  /** Objects in processes in which the fix is in effect. */
  readonly fixed: readonly { readonly pid: number; readonly object: SurveyedObject }[];
  readonly leftBehind: readonly LeftBehind[];
}

/** All vulnerabilities that the feed knows, by id. */
export function judge({ byBuildId }: KnownFixes, survey: Survey): CveVerdict[] {
  const entries = new Map<string, PatchEntry[]>();
  for (const entry of byBuildId.values())
    for (const { id } of entry.cves) if (isCveId(id)) entries.set(id, [...(entries.get(id) ?? []), entry]);
  const unreadable = survey.unreadable.map(({ pid, comm, error }) => ({
    pid,
    comm,
    reason: 'unreadable' as const,
    detail: error.message,
  }));
  return [...entries]
    .map(([cve, patches]) => ({ cve, entries: patches, ...judgeOne(cve, survey.processes), unreadable }))
    .map(({ unreadable: unknown, leftBehind, ...verdict }) => ({
      ...verdict,
      leftBehind: [...leftBehind, ...unknown],
    }))
    .sort((left, right) => compareIds(left.cve, right.cve));
}

/** R6: in effect somewhere, and nowhere missing. */
export function isFixed({ fixed, leftBehind }: CveVerdict): boolean {
  return fixed.length > 0 && leftBehind.length === 0;
}

/** What may stand in a file with one id a line, whatever a feed says. */
function isCveId(id: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id);
}

/** CVE-2026-9 before CVE-2026-10. */
function compareIds(left: string, right: string): number {
  return left.localeCompare(right, 'en', { numeric: true });
}

function judgeOne(
  cve: string,
  processes: readonly SurveyedProcess[],
): Pick<CveVerdict, 'fixed' | 'leftBehind'> {
  const fixed: { pid: number; object: SurveyedObject }[] = [];
  const leftBehind: LeftBehind[] = [];
  for (const process of processes) {
    for (const object of process.objects) {
      const hindrance = hindranceOf(cve, process, object);
      if (hindrance === 'unaffected') continue;
      const { pid, comm } = process;
      if (hindrance === undefined) fixed.push({ pid, object });
      else leftBehind.push({ pid, comm, object, ...hindrance });
    }
  }
  return { fixed, leftBehind };
}

/** Undefined: the fix is in effect. */
function hindranceOf(
  cve: string,
  process: SurveyedProcess,
  object: SurveyedObject,
): Pick<LeftBehind, 'reason' | 'detail'> | 'unaffected' | undefined {
  const { entry, namesakes, image, installedVersion, name } = object;
  if (!entry) {
    const affected = namesakes.filter((one) => names(one, cve));
    if (affected.every((one) => isNewerThan(installedVersion, one))) return 'unaffected';
    const version = installedVersion === undefined ? '' : ` of version ${installedVersion}`;
    return {
      reason: 'unknown-build',
      detail: `There is no patch for its ${name}${version}, build-id ${object.buildId}.`,
    };
  }
  if (!names(entry, cve)) return 'unaffected';
  if (process.error) return { reason: 'unreadable', detail: process.error.message };
  if (!image) {
    const rule = process.blacklisted;
    return rule
      ? { reason: 'excluded', detail: `Line ${rule.line} of ${rule.file} excludes it: ${rule.text}.` }
      : { reason: 'not-patched', detail: `Its ${name} is not patched.` };
  }
  if (image.state !== 'active')
    return { reason: 'interrupted', detail: `The patch of its ${name} is ${image.state}.` };
  if (image.level >= entry.level || names(image, cve)) return undefined;
  return {
    reason: 'older-level',
    detail: `The patch of its ${name} has level ${image.level}; the fix comes with level ${entry.level}.`,
  };
}

/**
 * The text of an image is in memory that the process can write: it counts only for vulnerabilities that the signed feed
 * knows for the same build, so that a process can lie about nothing but itself.
 */
function names({ cves }: { readonly cves: readonly { readonly id: string }[] }, cve: string): boolean {
  return cves.some(({ id }) => id === cve);
}
