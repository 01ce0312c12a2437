// Patch files as entries of a patchset, and the rules for putting them over the entries of the patchset before.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { TargetFile } from '@tufjs/models';
import { KcareError, asKcareError } from '../base/errors.js';
import { kernelModuleExtension, readKernelModule, readPatch } from '../patchfile/index.js';
import { limits, patchPath, type PatchsetKind } from './names.js';
import type { PatchEntry } from './schema.js';

export interface FeedPatch {
  readonly entry: PatchEntry;
  readonly bytes: Buffer;
}

/** Reads and checks patch files. Throws what `readPatch` throws, with the path in the message; FEED_CONFLICT. */
export async function readFeedPatches(files: readonly string[]): Promise<FeedPatch[]> {
  const patches: FeedPatch[] = [];
  for (const file of files) {
    const bytes = await readFile(file).catch((error: unknown) => {
      throw asKcareError(error);
    });
    if (bytes.length > limits.patch) {
      throw new KcareError(
        'FEED_CONFLICT',
        `${file} is larger than ${limits.patch} bytes, the most that clients accept.`,
      );
    }
    const entry = describePatch(bytes, file);
    const same = patches.find((patch) => patch.entry.buildId === entry.buildId);
    if (same === undefined) patches.push({ entry, bytes });
    else if (same.entry.sha256 !== entry.sha256) {
      throw new KcareError('FEED_CONFLICT', `${file} is a second patch for build-id ${entry.buildId}.`);
    }
  }
  return patches;
}

const isKernelModule = (file: string): boolean => file.endsWith(kernelModuleExtension);

/** Kernel modules go into patchsets of their own. Throws USAGE for a mixture. */
export function kindOfFiles(files: readonly string[]): PatchsetKind | undefined {
  const kinds = new Set(files.map((file) => (isKernelModule(file) ? 'K' : 'U')));
  if (kinds.size > 1)
    throw new KcareError(
      'USAGE',
      'Publish kernel modules (.ko) and patches for libraries one after the other.',
    );
  return [...kinds][0];
}

function describeKernelModule(bytes: Buffer): PatchEntry {
  const { buildId, level, release, packageVersion, effective, cves } = readKernelModule(bytes);
  return {
    buildId,
    level,
    file: patchPath(buildId, level, kernelModuleExtension),
    sha256: createHash('sha256').update(bytes).digest('hex'),
    size: bytes.length,
    objectName: 'vmlinux',
    package: `linux-image-${release}`,
    packageVersion,
    fixedVersion: effective,
    cves: cves.map((cve) => ({ ...cve })),
  };
}

function describePatch(bytes: Buffer, file: string): PatchEntry {
  try {
    if (isKernelModule(file)) return describeKernelModule(bytes);
    const { buildId, metadata } = readPatch(bytes);
    return {
      buildId,
      level: metadata.level,
      file: patchPath(buildId, metadata.level),
      sha256: createHash('sha256').update(bytes).digest('hex'),
      size: bytes.length,
      objectName: metadata.objectName,
      package: metadata.package,
      packageVersion: metadata.packageVersion,
      fixedVersion: metadata.fixedVersion,
      cves: metadata.cves.map((cve) => ({ ...cve })),
    };
  } catch (error) {
    if (!(error instanceof KcareError)) throw error;
    throw new KcareError(error.code, `${file}: ${error.message}`, error.details, { cause: error });
  }
}

/**
 * The entries of the next patchset, sorted by build-id: those of the previous one, replaced by higher levels.
 * Throws FEED_CONFLICT with all conflicts at once.
 */
export function mergePatches(
  previous: readonly PatchEntry[],
  patches: readonly FeedPatch[],
  published: Readonly<Record<string, TargetFile>>,
  without: readonly string[],
): PatchEntry[] {
  const merged = new Map(previous.map((entry) => [entry.buildId, entry]));
  const conflicts: string[] = [];
  for (const { entry } of patches) {
    const before = merged.get(entry.buildId);
    const earlier = published[entry.file]?.hashes['sha256'];
    if (before !== undefined && entry.level <= before.level && entry.sha256 !== before.sha256) {
      conflicts.push(
        `${entry.objectName} (build-id ${entry.buildId}): level ${entry.level} is not above level ${before.level} of the feed`,
      );
    } else if (earlier !== undefined && earlier !== entry.sha256) {
      conflicts.push(`${entry.file} was published before with other contents`);
    } else {
      merged.set(entry.buildId, entry);
    }
  }
  if (conflicts.length > 0) {
    throw new KcareError('FEED_CONFLICT', `Nothing was published: ${conflicts.join('; ')}.`, { conflicts });
  }
  for (const buildId of without) merged.delete(buildId);
  return [...merged.values()].sort((a, b) => (a.buildId < b.buildId ? -1 : 1));
}

/** Throws USAGE for a build-id that no patch of the feed ever had: it is mistyped. */
export function checkBuildIds(
  without: readonly string[],
  published: Readonly<Record<string, TargetFile>>,
): void {
  for (const buildId of without) {
    if (!Object.keys(published).some((path) => path.startsWith(`patches/${buildId}-`))) {
      throw new KcareError('USAGE', `No patch of the feed has the build-id ${buildId}.`);
    }
  }
}
