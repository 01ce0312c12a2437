// Packages of the distribution's archive, fetched once and unpacked (never installed) in the work directory.
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { PrivateApt } from './apt.js';
import { run } from './run.js';
import { chooseVersions, type VersionPair } from './versions.js';
import { makeDirectoryOnce, withLock } from './work-directory.js';

const unpackedDirectory = (work: string, name: string, version: string): string =>
  path.join(work, 'binary', `${name}_${version}`);

const sourceDirectory = (work: string, name: string, version: string): string =>
  path.join(work, 'source', `${name}_${version}`);

/** Runs `download` with the lists at hand, and once more with fresh lists if the archive has moved on. */
async function withFreshLists(work: string, download: (apt: PrivateApt) => Promise<void>): Promise<void> {
  const apt = await PrivateApt.open(work);
  if (!apt.isUpdated) {
    await apt.update();
    await download(apt);
    return;
  }
  try {
    await download(apt);
  } catch {
    await apt.update();
    await download(apt);
  }
}

async function onlyFile(directory: string, suffix: string): Promise<string> {
  const file = (await readdir(directory)).find((name) => name.endsWith(suffix));
  if (file === undefined)
    throw new KcareError('ARCHIVE_UNAVAILABLE', `The archive delivered no ${suffix} file.`);
  return path.join(directory, file);
}

/**
 * The root directory of a binary package of exactly this version, fetched from the machine's own archive and
 * unpacked without being installed. Cached: a second call does no network. Throws ARCHIVE_UNAVAILABLE or
 * BUILD_TOOL_FAILED.
 */
export async function unpackBinary(work: string, name: string, version: string): Promise<string> {
  const final = unpackedDirectory(work, name, version);
  if (existsSync(final)) return final;
  return withLock(path.join(work, 'binary'), () =>
    makeDirectoryOnce(final, async (root) => {
      const downloads = path.join(work, 'downloads', `${name}_${version}`);
      await makeDirectoryOnce(downloads, (directory) =>
        withFreshLists(work, (apt) => apt.downloadBinary(name, version, directory)),
      );
      await run('dpkg', ['-x', await onlyFile(downloads, '.deb'), root]);
    }),
  );
}

/** The unpacked tree of a source package with the distribution's patches applied. Cached like unpackBinary. */
export async function unpackSource(work: string, name: string, version: string): Promise<string> {
  const final = sourceDirectory(work, name, version);
  const tree = path.join(final, 'tree');
  if (existsSync(final)) return tree;
  await withLock(path.join(work, 'source'), () =>
    makeDirectoryOnce(final, async (directory) => {
      const downloads = path.join(work, 'downloads', `${name}_${version}_source`);
      await makeDirectoryOnce(downloads, (files) =>
        withFreshLists(work, (apt) => apt.downloadSource(name, version, files)),
      );
      await run('dpkg-source', [
        '--no-check',
        '-x',
        await onlyFile(downloads, '.dsc'),
        path.join(directory, 'tree'),
      ]);
    }),
  );
  return tree;
}

/** An archive may list sources that it no longer delivers: the first of `versions` that cannot be had. */
async function firstGone(
  work: string,
  source: string,
  versions: readonly string[],
): Promise<string | undefined> {
  for (const version of versions) {
    try {
      await unpackSource(work, source, version);
    } catch (error) {
      if (error instanceof KcareError) return version;
      throw error;
    }
  }
  return undefined;
}

/** The pair of versions to build from: the wanted one if it is cached or in the archive, else the nearest. */
export async function availableVersions(
  work: string,
  packages: { readonly source: string; readonly binary: string },
  wanted: { readonly runs: string; readonly fixed: string },
): Promise<VersionPair> {
  const cached = [
    unpackedDirectory(work, packages.binary, wanted.runs),
    sourceDirectory(work, packages.source, wanted.runs),
    sourceDirectory(work, packages.source, wanted.fixed),
  ].every((directory) => existsSync(directory));
  if (cached) return { runs: wanted.runs, fixed: wanted.fixed, substituted: false };
  return withLock(path.join(work, 'binary'), async () => {
    const apt = await PrivateApt.open(work);
    if (!apt.isUpdated) await apt.update();
    let available = await apt.versions(packages.source, packages.binary);
    let pair = chooseVersions(wanted, available);
    if (pair === undefined || pair.substituted) {
      await apt.update();
      available = await apt.versions(packages.source, packages.binary);
      pair = chooseVersions(wanted, available);
    }
    while (pair?.substituted === true) {
      const gone = await firstGone(work, packages.source, [pair.fixed, pair.runs]);
      if (gone === undefined) break;
      available = { ...available, source: available.source.filter((version) => version !== gone) };
      pair = chooseVersions(wanted, available);
    }
    if (pair !== undefined) return pair;
    throw new KcareError(
      'ARCHIVE_UNAVAILABLE',
      `The archive holds no two versions of ${packages.source} with ${packages.binary} to build a patch from.`,
    );
  });
}
