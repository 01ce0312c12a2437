// The target files in a publisher's feed directory, checked against its metadata when read.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Targets } from '@tufjs/models';
import { KcareError } from '../base/errors.js';
import { feedListPath, hashedPath, patchsetPath } from './names.js';
import { type PatchsetIndex, type ReleasedPatchset, parseFeedList, parsePatchsetIndex } from './schema.js';

/** A feed directory with the targets that its metadata lists, or will list. */
export interface StoredTargets {
  readonly directory: string;
  readonly targets: Pick<Targets, 'targets'>;
}

export function targetFilePath(feedDirectory: string, path: string): string {
  return join(feedDirectory, 'targets', path);
}

/** All patchsets of the feed, oldest first; empty for a new feed. */
export async function readStoredList(repository: StoredTargets): Promise<readonly ReleasedPatchset[]> {
  if (repository.targets.targets[feedListPath] === undefined) return [];
  return parseFeedList(await readStoredTarget(repository, feedListPath));
}

export async function readStoredIndex(repository: StoredTargets, name: string): Promise<PatchsetIndex> {
  return parsePatchsetIndex(await readStoredTarget(repository, patchsetPath(name)), name);
}

async function readStoredTarget(repository: StoredTargets, path: string): Promise<Buffer> {
  const sha256 = repository.targets.targets[path]?.hashes['sha256'];
  if (sha256 === undefined) throw new KcareError('FEED_MALFORMED', `The feed does not list ${path}.`);
  const bytes = await readFile(targetFilePath(repository.directory, hashedPath(path, sha256)));
  if (createHash('sha256').update(bytes).digest('hex') !== sha256) {
    throw new KcareError(
      'FEED_MISMATCH',
      `${path} of the feed is damaged; restore it from a backup or a mirror.`,
    );
  }
  return bytes;
}
