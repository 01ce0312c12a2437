// One look at all processes: which objects with known vulnerabilities they map, and what is patched in them.
import { compareVersions } from '../build/versions.js';
import { asKcareError, type KcareError } from '../base/errors.js';
import { inspect, type AppliedImage } from '../engine/index.js';
import type { PatchEntry } from '../feed/index.js';
import { discover, type Blacklist, type BlacklistRule } from '../host/index.js';
import type { MappedObject } from '../proc/index.js';
import { installedPackages, type InstalledPackages } from './debian-packages.js';
import type { KnownFixes } from './known-fixes.js';

/** An object of which the feed knows vulnerabilities, in one process; one that is mapped twice appears twice. */
export interface SurveyedObject {
  readonly name: string;
  readonly path: string;
  readonly buildId: string;
  /** The newest patch for this very build. */
  readonly entry: PatchEntry | undefined;
  /** For a build that the feed does not know: the patches for other builds of the same library. */
  readonly namesakes: readonly PatchEntry[];
  /** For such a build: the version of the package that owns the file, as the process's own dpkg says. */
  readonly installedVersion: string | undefined;
  /** What is applied to this object. */
  readonly image: AppliedImage | undefined;
}

export interface SurveyedProcess {
  readonly pid: number;
  readonly comm: string;
  readonly executable: string;
  readonly blacklisted?: BlacklistRule;
  /** Only objects of which something is known. */
  readonly objects: readonly SurveyedObject[];
  /** All that kcare has mapped there, also what is out of effect. */
  readonly images: readonly AppliedImage[];
  /** The images could not be read, so nothing counts as patched. */
  readonly error?: KcareError;
}

export interface Survey {
  readonly taken: Date;
  /** All processes that could be examined. */
  readonly processes: readonly SurveyedProcess[];
  /** Processes about which nothing is known. */
  readonly unreadable: readonly { readonly pid: number; readonly comm: string; readonly error: KcareError }[];
}

export interface SurveyOptions {
  readonly pids?: readonly number[] | undefined;
  readonly blacklist: Blacklist;
}

/** Looks at every process but this one; those that end meanwhile are left out (R11). */
export function takeSurvey(fixes: KnownFixes, { pids, blacklist }: SurveyOptions): Survey {
  const taken = new Date();
  const found = discover({ pids, blacklist });
  const byName = entriesByName(fixes);
  const packages = packageReader();
  const unreadable = [...found.unreadable];
  const processes = found.processes.flatMap((process) => {
    const images = inspectOrError(process.pid);
    if (!Array.isArray(images) && images.code === 'TARGET_GONE') {
      if (pids) unreadable.push({ pid: process.pid, comm: process.comm, error: images });
      return [];
    }
    const applied = Array.isArray(images) ? images : [];
    return [
      {
        ...process,
        objects: process.objects.flatMap((object, index) => {
          const entry = fixes.byBuildId.get(object.buildId);
          const namesakes = entry ? [] : (byName.get(libraryName(object.name)) ?? []);
          if (!entry && namesakes.length === 0) return [];
          const copy = process.objects.slice(0, index).filter(({ buildId }) => buildId === object.buildId);
          const { name, path, buildId } = object;
          const image = imagesOf(applied, buildId)[copy.length];
          const installedVersion = entry ? undefined : packages(process.pid, object, namesakes);
          return [{ name, path, buildId, entry, namesakes, image, installedVersion }];
        }),
        images: applied,
        ...(!Array.isArray(images) && { error: images }),
      },
    ];
  });
  return { taken, processes, unreadable };
}

/** Each copy of an object has an image of its own; one in effect comes first, so that none is passed over. */
function imagesOf(images: readonly AppliedImage[], buildId: string): AppliedImage[] {
  const own = images.filter((image) => image.buildId === buildId && image.state !== 'removed');
  return own.sort((left, right) => Number(right.state === 'active') - Number(left.state === 'active'));
}

function inspectOrError(pid: number): AppliedImage[] | KcareError {
  try {
    return inspect(pid);
  } catch (thrown) {
    return asKcareError(thrown);
  }
}

function entriesByName({ byBuildId }: KnownFixes): Map<string, PatchEntry[]> {
  const byName = new Map<string, PatchEntry[]>();
  for (const entry of byBuildId.values()) {
    const name = libraryName(entry.objectName);
    byName.set(name, [...(byName.get(name) ?? []), entry]);
  }
  return byName;
}

/** "libz.so.1" of "libz.so.1.2.13": the files of one library in its versions. */
function libraryName(file: string): string {
  return /^(.+?\.so(?:\.\d+)?)(?:\.\d+)*$/.exec(file)?.[1] ?? file;
}

/**
 * The version of the package that put an object where a process has it, as dpkg in the root directory of the process
 * says; a container speaks about itself only. Undefined for other files, and for deleted ones.
 */
function packageReader(): (
  pid: number,
  object: MappedObject,
  namesakes: readonly PatchEntry[],
) => string | undefined {
  const known = new Map<string, string | undefined>();
  const roots = new Map<string, InstalledPackages>();
  return (pid, { path, deleted, device, inode }, namesakes) => {
    if (deleted) return undefined;
    const key = `${device} ${inode} ${path}`;
    if (!known.has(key)) {
      const root = `/proc/${pid}/root`;
      const packages = roots.get(root) ?? installedPackages(root);
      roots.set(root, packages);
      const name = namesakes.map((entry) => entry.package).find((one) => packages.owns(one, path));
      known.set(key, name === undefined ? undefined : packages.version(name));
    }
    return known.get(key);
  };
}

/** The build that is mapped is one of a package that has the fixes of `entry` already. */
export function isNewerThan(installedVersion: string | undefined, entry: PatchEntry): boolean {
  return (
    installedVersion !== undefined &&
    entry.fixedVersion !== '' &&
    compareVersions(installedVersion, entry.fixedVersion) >= 0
  );
}
