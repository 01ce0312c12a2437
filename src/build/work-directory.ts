// The work directory of builds: where it is, and how entries are made whole or not at all.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import lockfile from 'proper-lockfile';
import { packageRoot } from '../base/package-root.js';

/** `$KCARE_WORK`, or `.cache/build` in the package. */
export function defaultWorkDirectory(): string {
  return process.env['KCARE_WORK'] ?? path.join(packageRoot(), '.cache', 'build');
}

/** Runs `action` while no other builder holds `directory`; waits up to ten minutes for it. */
export async function withLock<T>(directory: string, action: () => Promise<T>): Promise<T> {
  mkdirSync(directory, { recursive: true });
  const release = await lockfile.lock(directory, {
    stale: 30_000,
    update: 5_000,
    retries: { retries: 1200, factor: 1, minTimeout: 500, maxTimeout: 500 },
  });
  try {
    return await action();
  } finally {
    await release();
  }
}

/** Makes the directory `final` by filling a temporary one beside it and renaming: it is complete or absent. */
export async function makeDirectoryOnce(
  final: string,
  fill: (directory: string) => Promise<void>,
): Promise<string> {
  if (existsSync(final)) return final;
  const temporary = `${final}.part-${randomBytes(4).toString('hex')}`;
  await mkdir(temporary, { recursive: true });
  try {
    await fill(temporary);
    await rename(temporary, final);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return final;
}
