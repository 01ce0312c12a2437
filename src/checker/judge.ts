// The verdict about one file in one process: what is installed, what the feed knows, and what is applied, brought together.
import { basename } from 'node:path';
import { compareVersions } from '../build/versions.js';
import type { PatchEntry } from '../feed/index.js';
import { fixFor, type FeedKnowledge } from './known-fixes.js';
import type { InstalledPackage } from './packages.js';
import type { OutdatedObject, Reason } from './report.js';
import type { LocatedFile } from './views.js';

/** Where packages put files. What is deleted elsewhere was put there by the program itself, to be deleted. */
const packageDirectories = /^\/(?:usr|lib|lib32|lib64|libx32|bin|sbin|opt|gnu|nix)\//;

/** Whether anything about the file can be outdated, before the patches of the process are looked at. */
export function isSuspect({ file }: LocatedFile, fix: PatchEntry | undefined): boolean {
  return fix !== undefined || file.state === 'replaced' || isRemoved(file);
}

function isRemoved({ state, path }: LocatedFile['file']): boolean {
  return state === 'deleted' && packageDirectories.test(path);
}

/** Undefined: up to date. `level` is what is applied in the process. */
export function judge(located: LocatedFile, level: number, feed: FeedKnowledge): OutdatedObject | undefined {
  const { file } = located;
  const fix = fixFor(feed, file.buildId);
  const installed = isSuspect(located, fix) ? packageOf(located, fix) : undefined;
  const isFixed = fix !== undefined && level >= fix.level;
  const reasons: Reason[] = [];
  // A process with all known fixes in memory needs no newer file, unless that is newer than the fixes.
  const isCovered = isFixed && installed !== undefined && isNotNewer(installed.version, fix.fixedVersion);
  if (file.state === 'replaced' && !isCovered) reasons.push('replaced');
  if (isRemoved(file) && !isCovered) reasons.push('deleted');
  if (fix !== undefined && !isFixed) reasons.push('fix-known');
  if (reasons.length === 0) return undefined;
  const path = Buffer.from(file.path, 'latin1').toString('utf8');
  const nextFix = fixFor(feed, file.installedBuildId);
  return {
    name: basename(path),
    path,
    buildId: file.buildId ?? '',
    reasons,
    patchable: fix !== undefined && !isFixed,
    level,
    ...(fix && { knownLevel: fix.level }),
    cves: fix && !isFixed ? fix.cves.map(({ id }) => id) : [],
    ...((installed?.name ?? fix?.package) && { package: installed?.name ?? fix?.package ?? '' }),
    ...versionsOf(file.state === 'current', installed, fix),
    ...(file.installedBuildId !== undefined && { installedBuildId: file.installedBuildId }),
    ...(nextFix && { installedIsOutdated: true }),
    ...(fix && fix.fixedVersion !== '' && { fixedVersion: fix.fixedVersion }),
  };
}

function versionsOf(
  isCurrent: boolean,
  installed: InstalledPackage | undefined,
  fix: PatchEntry | undefined,
): Pick<OutdatedObject, 'runningVersion' | 'installedVersion'> {
  const known = fix && fix.packageVersion !== '' ? fix.packageVersion : undefined;
  const running = known ?? (isCurrent ? installed?.version : installed?.previousVersion);
  return {
    ...(running !== undefined && { runningVersion: running }),
    ...(installed && { installedVersion: installed.version }),
  };
}

/** A removed file may be in no list of files any more; then the feed knows the name of its package. */
function packageOf({ file, root }: LocatedFile, fix: PatchEntry | undefined): InstalledPackage | undefined {
  const owner = root.packages?.ownerOf(file.path);
  return owner ?? (isRemoved(file) && fix?.package ? root.packages?.find(fix.package) : undefined);
}

function isNotNewer(installed: string, fixed: string): boolean {
  return fixed !== '' && compareVersions(installed, fixed) <= 0;
}
