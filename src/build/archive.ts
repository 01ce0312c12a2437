// Packages of the distribution's archive, fetched once and unpacked (never installed) in the work directory.
import { existsSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { PrivateApt } from './apt.js';
import { run } from './run.js';
import { chooseVersions, compareVersions, type AvailableVersions, type VersionPair } from './versions.js';
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

async function onlyFile(directory: string, suffix: string | RegExp): Promise<string> {
  const file = (await readdir(directory)).find((name) =>
    typeof suffix === 'string' ? name.endsWith(suffix) : suffix.test(name),
  );
  if (file === undefined)
    throw new KcareError('ARCHIVE_UNAVAILABLE', `The archive delivered no ${String(suffix)} file.`);
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

const upstreamDirectory = (work: string, name: string, version: string): string =>
  `${sourceDirectory(work, name, version)}_upstream`;

/** The unpacked upstream tarball of a source package, without the distribution's patches. Cached like unpackBinary. */
async function unpackUpstream(work: string, name: string, version: string): Promise<string> {
  const final = upstreamDirectory(work, name, version);
  const tree = path.join(final, 'tree');
  if (existsSync(final)) return tree;
  await withLock(path.join(work, 'source'), () =>
    makeDirectoryOnce(final, async (directory) => {
      const downloads = path.join(work, 'downloads', `${name}_${version}_upstream`);
      await makeDirectoryOnce(downloads, (files) =>
        withFreshLists(work, (apt) => apt.downloadUpstream(name, version, files)),
      );
      const unpacked = path.join(directory, 'tree');
      await mkdir(unpacked);
      const tarball = await onlyFile(downloads, /\.orig\.tar\.\w+$/);
      await run('tar', ['-xf', tarball, '-C', unpacked, '--strip-components=1', '--no-same-owner']);
    }),
  );
  return tree;
}

/**
 * The tree that fixed functions are taken from: the source package or, where the archive lists it but does not deliver
 * it, upstream's tarball.
 */
export async function unpackFixedSource(
  work: string,
  name: string,
  version: string,
): Promise<{ readonly tree: string; readonly isUpstream: boolean }> {
  if (existsSync(upstreamDirectory(work, name, version)))
    return { tree: await unpackUpstream(work, name, version), isUpstream: true };
  try {
    return { tree: await unpackSource(work, name, version), isUpstream: false };
  } catch (error) {
    if (!(error instanceof KcareError)) throw error;
    try {
      return { tree: await unpackUpstream(work, name, version), isUpstream: true };
    } catch {
      throw error;
    }
  }
}

/** Versions of which the archive has the binary package and its source, lowest first; its lists are fetched anew. */
export async function archiveVersions(
  work: string,
  packages: { readonly source: string; readonly binary: string },
): Promise<string[]> {
  return withLock(path.join(work, 'binary'), async () => {
    const apt = await PrivateApt.open(work);
    await apt.update();
    const { source, binary } = await apt.versions(packages.source, packages.binary);
    return binary.filter((version) => source.includes(version)).sort(compareVersions);
  });
}

/** The pair with exactly `wanted.runs`; the fixed version may be another one. Throws ARCHIVE_UNAVAILABLE. */
export async function exactVersion(
  work: string,
  packages: { readonly source: string; readonly binary: string },
  wanted: { readonly runs: string; readonly fixed: string },
  folder?: string,
): Promise<VersionPair> {
  if (compareVersions(wanted.runs, wanted.fixed) >= 0)
    return { runs: wanted.runs, fixed: wanted.fixed, substituted: false };
  const pair = await availableVersions(work, packages, wanted, folder);
  if (pair.runs === wanted.runs) return pair;
  throw new KcareError(
    'ARCHIVE_UNAVAILABLE',
    `The archive does not hold ${packages.binary} ${wanted.runs} with its source.`,
  );
}

/** An archive may list sources that it no longer delivers: the version of the pair that cannot be had. */
async function firstGone(
  work: string,
  source: string,
  { runs, fixed }: VersionPair,
): Promise<string | undefined> {
  const isGone = async (unpack: () => Promise<unknown>): Promise<boolean> => {
    try {
      await unpack();
      return false;
    } catch (error) {
      if (error instanceof KcareError) return true;
      throw error;
    }
  };
  if (await isGone(() => unpackFixedSource(work, source, fixed))) return fixed;
  return (await isGone(() => unpackSource(work, source, runs))) ? runs : undefined;
}

/**
 * The pair of versions to build from: the wanted one if it is cached or in the archive, else the nearest. With a
 * `folder` of fixed sources the archive need not have the fixed version.
 */
export async function availableVersions(
  work: string,
  packages: { readonly source: string; readonly binary: string },
  wanted: { readonly runs: string; readonly fixed: string },
  folder?: string,
): Promise<VersionPair> {
  const { source, binary } = packages;
  const isCached = (...directories: string[]): boolean =>
    directories.some((directory) => existsSync(directory));
  if (
    isCached(unpackedDirectory(work, binary, wanted.runs)) &&
    isCached(sourceDirectory(work, source, wanted.runs)) &&
    (folder !== undefined ||
      isCached(sourceDirectory(work, source, wanted.fixed), upstreamDirectory(work, source, wanted.fixed)))
  )
    return { runs: wanted.runs, fixed: wanted.fixed, substituted: false };
  return withLock(path.join(work, 'binary'), async () => {
    const apt = await PrivateApt.open(work);
    if (!apt.isUpdated) await apt.update();
    const list = async (): Promise<AvailableVersions> => {
      const listed = await apt.versions(source, binary);
      return folder === undefined ? listed : { ...listed, source: [...listed.source, wanted.fixed] };
    };
    let available = await list();
    let pair = chooseVersions(wanted, available);
    if (pair === undefined || pair.substituted) {
      await apt.update();
      available = await list();
      pair = chooseVersions(wanted, available);
    }
    while (pair?.substituted === true && folder === undefined) {
      const gone = await firstGone(work, source, pair);
      if (gone === undefined) break;
      available = { ...available, source: available.source.filter((version) => version !== gone) };
      pair = chooseVersions(wanted, available);
    }
    if (pair !== undefined) return pair;
    throw new KcareError(
      'ARCHIVE_UNAVAILABLE',
      `The archive holds no two versions of ${source} with ${binary} to build a patch from.`,
    );
  });
}
