// The agent's copy of a feed on disk: whole generations of metadata, switched atomically, and verified targets by hash.
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  lstat,
  mkdir,
  open,
  readFile,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { KcareError } from '../base/errors.js';
import { readSafeFile, safeDirectory, syncDirectory, writeAtomically } from '../base/safe-files.js';
import type { RootChain, StoredMetadata } from './verify.js';

/*
 * <cacheDirectory>/<prefix>-<first 16 digits of the SHA-256 of the server's URL>/
 *   current -> generation.<random>      replaced by rename, so it is the old or the new state
 *   generation.<random>/
 *     1.root.json.asc  1.root.json … N.root.json
 *     root.json  timestamp.json  snapshot.json  targets.json     as the updater names them
 *   targets/<sha256>
 */
export interface FeedCache {
  readonly directory: string;
}

const link = 'current';

/** Opens the cache of one feed, making it when missing. Throws UNSAFE_MODE (R10). */
export async function openCache(cacheDirectory: string, server: string, prefix: string): Promise<FeedCache> {
  const base = await safeDirectory(cacheDirectory);
  const directory = await safeDirectory(join(base, directoryName(server, prefix)));
  await safeDirectory(join(directory, 'targets'));
  return { directory };
}

/** Whether {@link openCache} would find something; makes nothing. */
export function hasCache(cacheDirectory: string, server: string, prefix: string): boolean {
  return existsSync(join(cacheDirectory, directoryName(server, prefix), link));
}

function directoryName(server: string, prefix: string): string {
  return `${prefix}-${createHash('sha256').update(server).digest('hex').slice(0, 16)}`;
}

/** The metadata directory in force, or undefined for an empty cache. Throws UNSAFE_MODE. */
export async function currentGeneration(cache: FeedCache): Promise<string | undefined> {
  const path = join(cache.directory, link);
  let target: string;
  try {
    target = await readlink(path);
  } catch {
    return undefined;
  }
  if (!/^generation\.[0-9a-f]+$/.test(target)) {
    throw new KcareError('UNSAFE_MODE', `${path} does not lead to a generation; it is not used.`);
  }
  const generation = join(cache.directory, target);
  return existsSync(generation) ? await safeDirectory(generation) : undefined;
}

/** A new, empty generation that nothing points to yet. */
export async function newGeneration(cache: FeedCache): Promise<string> {
  const path = join(cache.directory, `generation.${randomBytes(8).toString('hex')}`);
  await mkdir(path, { mode: 0o755 });
  return path;
}

/** Makes `generation` the state in force; all its files are on disk before it is (a crash leaves the old state). */
export async function activateGeneration(cache: FeedCache, generation: string): Promise<void> {
  const old = await currentGeneration(cache).catch(() => undefined);
  const name = generation.slice(cache.directory.length + 1);
  const temporary = join(cache.directory, `.${link}.${randomBytes(8).toString('hex')}`);
  for (const file of await readdir(generation)) await settleFile(join(generation, file));
  await syncDirectory(generation);
  await symlink(name, temporary);
  await rename(temporary, join(cache.directory, link));
  await syncDirectory(cache.directory);
  if (old !== undefined) await rm(old, { recursive: true, force: true });
}

/** The updater writes plainly: give its files a safe mode whatever the umask is, and get them onto the disk. */
async function settleFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.chmod(0o644);
    await file.sync();
  } finally {
    await file.close();
  }
}

export async function dropGeneration(generation: string): Promise<void> {
  await rm(generation, { recursive: true, force: true });
}

/** Removes what crashed runs left, and targets that the feed no longer lists. Call after activation. */
export async function tidyCache(cache: FeedCache, listed: ReadonlySet<string>): Promise<void> {
  const current = await readlink(join(cache.directory, link));
  for (const name of await readdir(cache.directory)) {
    if ((name.startsWith('generation.') && name !== current) || name.startsWith(`.${link}.`)) {
      await rm(join(cache.directory, name), { recursive: true, force: true });
    }
  }
  for (const name of await readdir(join(cache.directory, 'targets'))) {
    if (!listed.has(name)) await rm(join(cache.directory, 'targets', name), { force: true });
  }
}

/** Notes that the server still offers what `generation` holds: the time of change of its verdict tells when. */
export async function confirmGeneration(generation: string): Promise<void> {
  const now = new Date();
  // A note for people; what was verified stays verified without it.
  await utimes(join(generation, 'verdict.json'), now, now).catch(() => undefined);
}

/** When `generation` was fetched, or found to be unchanged. */
export async function confirmedAt(generation: string): Promise<Date | undefined> {
  const status = await lstat(join(generation, 'verdict.json')).catch(() => undefined);
  return status?.mtime;
}

/** The roots kept in a generation. Throws FEED_MALFORMED when it is not whole. */
export async function readRootChain(generation: string): Promise<RootChain> {
  const roots: Buffer[] = [];
  while (existsSync(join(generation, `${roots.length + 1}.root.json`))) {
    roots.push(await readSafeFile(join(generation, `${roots.length + 1}.root.json`)));
  }
  return { roots, signature: await readSafeFile(join(generation, '1.root.json.asc')) };
}

export async function writeRootChain(generation: string, chain: RootChain): Promise<void> {
  await writeAtomically(join(generation, '1.root.json.asc'), chain.signature);
  for (const [index, bytes] of chain.roots.entries()) {
    await writeAtomically(join(generation, `${index + 1}.root.json`), bytes);
  }
}

export async function readStoredMetadata(generation: string): Promise<StoredMetadata> {
  const read = async (name: string): Promise<Buffer> => await readSafeFile(join(generation, name));
  return {
    timestamp: await read('timestamp.json'),
    snapshot: await read('snapshot.json'),
    targets: await read('targets.json'),
  };
}

/** Copies the files that protect against rollback from one generation to the next; missing ones stay missing. */
export async function inheritMetadata(from: string, to: string): Promise<void> {
  for (const name of ['timestamp.json', 'snapshot.json', 'targets.json']) {
    if (existsSync(join(from, name))) await writeFile(join(to, name), await readSafeFile(join(from, name)));
  }
}

/** Where a target of that hash is kept, if it is. */
export function targetPath(cache: FeedCache, sha256: string): string {
  return join(cache.directory, 'targets', sha256);
}

/** A cached target whose length and hash are right; undefined when it is not there or damaged (R4). */
export async function readCachedTarget(
  cache: FeedCache,
  sha256: string,
  length: number,
): Promise<Buffer | undefined> {
  const path = targetPath(cache, sha256);
  const status = await lstat(path).catch(() => undefined);
  if (status?.isFile() !== true || status.size !== length) return undefined;
  const bytes = await readFile(path);
  return createHash('sha256').update(bytes).digest('hex') === sha256 ? bytes : undefined;
}

export async function writeCachedTarget(cache: FeedCache, sha256: string, bytes: Buffer): Promise<void> {
  await writeAtomically(targetPath(cache, sha256), bytes);
}
