// What the daemon has to know of the feed: verified by the worker, from the cache, without any network (R4).
import { readdirSync, realpathSync, statSync, openSync, readSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { cachedFeedOf, isLibcareEnabled, readSettings } from '../agent/index.js';
import { buildIdFromNotes, parseProgramHeaders, readNotes, segmentType } from '../elf/index.js';
import { discover } from '../host/index.js';

export interface CollectedPatches {
  readonly patchset: string | null;
  /** Everything that the chosen patchset patches. */
  readonly known: readonly string[];
  /** Those that processes of this host run now, and those asked for; the bytes in base64. */
  readonly patches: readonly {
    readonly buildId: string;
    readonly patchset: string;
    readonly sha256: string;
    readonly bytes: string;
  }[];
  /** Files of this host with these build-ids, as the daemon can open them. */
  readonly files: readonly string[];
  /** Why nothing is to be patched; "" when there is no reason. */
  readonly problem: string;
}

/** Where the loader looks, on Debian and on Fedora and its kin. */
const libraryDirectories = [
  '/lib64',
  '/lib/x86_64-linux-gnu',
  '/usr/lib64',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/local/lib',
  '/usr/local/lib64',
];

/** Throws the errors of reading config and cache. */
export async function collectPatches(root: string, buildIds: readonly string[]): Promise<CollectedPatches> {
  const nothing = { patchset: null, known: [], patches: [], files: [] };
  const settings = await readSettings(root);
  if (!(await isLibcareEnabled(settings.paths)))
    return { ...nothing, problem: 'LibCare is turned off on this host.' };
  const { feed, problem } = await cachedFeedOf(settings);
  // R4: what is expired is not for applying.
  if (!feed || problem) return { ...nothing, problem: problem?.message ?? 'There is no feed.' };
  const known = new Set(feed.patches.map(({ buildId }) => buildId));
  const { processes } = discover({ wanted: (buildId) => known.has(buildId) });
  const files = new Set<string>(filesWith(known));
  const needed = new Set(buildIds.filter((buildId) => known.has(buildId)));
  for (const { pid, objects } of processes) {
    for (const { buildId, path } of objects) {
      needed.add(buildId);
      files.add(`/proc/${pid}/root${path}`);
    }
  }
  const patches: CollectedPatches['patches'][number][] = [];
  for (const buildId of needed) {
    const file = await feed.patchFor(buildId);
    if (!file) continue;
    const { patchset, sha256, bytes } = file;
    patches.push({ buildId, patchset, sha256, bytes: Buffer.from(bytes).toString('base64') });
  }
  return { patchset: feed.patchset ?? null, known: [...known], patches, files: [...files], problem: '' };
}

function filesWith(known: ReadonlySet<string>): string[] {
  const directories = new Set(
    libraryDirectories.flatMap((directory) => orNothing(() => [realpathSync(directory)])),
  );
  const found: string[] = [];
  const seen = new Set<string>();
  for (const directory of directories) {
    for (const name of orNothing(() => readdirSync(directory))) {
      if (!name.includes('.so')) continue;
      const path = join(directory, name);
      const key = orNothing(() => {
        const { dev, ino, mode } = statSync(path);
        return (mode & 0o170000) === 0o100000 ? [`${dev} ${ino}`] : [];
      })[0];
      if (key === undefined || seen.has(key)) continue;
      seen.add(key);
      const buildId = orNothing(() => [buildIdOfFile(path)])[0];
      if (buildId !== undefined && known.has(buildId)) found.push(path);
    }
  }
  return found;
}

const headSize = 4096;
const longestNotes = 64 * 1024;

function buildIdOfFile(path: string): string {
  const file = openSync(path, 'r');
  try {
    const head = Buffer.alloc(headSize);
    readSync(file, head, 0, headSize, 0);
    for (const { type, offset, fileSize, alignment } of parseProgramHeaders(head)) {
      if (type !== segmentType.note || fileSize > longestNotes) continue;
      const notes = Buffer.alloc(fileSize);
      readSync(file, notes, 0, fileSize, offset);
      const buildId = buildIdFromNotes(readNotes(notes, alignment));
      if (buildId !== undefined) return buildId;
    }
    return '';
  } finally {
    closeSync(file);
  }
}

/** Files that are no libraries, or that go meanwhile, are left out. */
function orNothing<T>(read: () => T[]): T[] {
  try {
    return read();
  } catch {
    return [];
  }
}
