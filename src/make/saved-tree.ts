// Keeps a project's files while a patched build works on them, and puts back every one that changed.
import { closeSync, existsSync, lstatSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { KcareError } from '../base/errors.js';
import { writeWhole } from '../build/result-cache.js';
import { lastLines, runTool } from './tools.js';

const entrySchema = z.object({
  path: z.string(),
  /** Name in the saved directory; absent for directories. */
  saved: z.string().optional(),
  /** Inode, size, time of change and mode, to tell whether a file is still the one that was saved. */
  identity: z.string(),
  /** The file itself was put aside and a copy left in its place: processes may have it mapped. */
  movedAside: z.boolean(),
});
type Entry = z.infer<typeof entrySchema>;
const manifestSchema = z.object({
  roots: z.array(z.string()),
  skipped: z.array(z.string()),
  entries: z.array(entrySchema),
});
type Manifest = z.infer<typeof manifestSchema>;

/** Histories of version control and what kcare itself keeps are never touched. */
const skippedNames = new Set(['.git', '.hg', '.svn', '.bzr', '.libcare']);

function* walk(directory: string, skipped: ReadonlySet<string>): Generator<string> {
  for (const { name, parentPath } of readdirSync(directory, { withFileTypes: true }).sort((l, r) =>
    l.name < r.name ? -1 : 1,
  )) {
    const file = path.join(parentPath, name);
    if (skippedNames.has(name) || skipped.has(file)) continue;
    yield file;
    if (lstatSync(file).isDirectory()) yield* walk(file, skipped);
  }
}

function identityOf(file: string): string | undefined {
  const status = lstatSync(file, { bigint: true, throwIfNoEntry: false });
  if (!status) return undefined;
  return status.isDirectory()
    ? 'directory'
    : [status.ino, status.size, status.mtimeNs, status.mode].map(String).join(' ');
}

/** Programs and libraries: the build may overwrite them in place while processes run them. */
function isLinked(file: string): boolean {
  const status = lstatSync(file);
  if (!status.isFile() || status.size < 64) return false;
  const handle = openSync(file, 'r');
  try {
    const header = Buffer.alloc(18);
    readSync(handle, header, 0, 18, 0);
    return header.readUInt32BE(0) === 0x7f454c46 && [2, 3].includes(header.readUInt16LE(16));
  } finally {
    closeSync(handle);
  }
}

export class SavedTree {
  private constructor(
    private readonly directory: string,
    private readonly manifest: Manifest,
  ) {}

  /**
   * Copies all files below `roots` into `directory`, which must be empty or absent; `skipped` are whole paths that are
   * left alone. From then on `recover` of the same directory undoes whatever happens to them.
   */
  static async save(
    roots: readonly string[],
    directory: string,
    skipped: readonly string[],
  ): Promise<SavedTree> {
    await rm(directory, { recursive: true, force: true });
    await mkdir(path.join(directory, 'files'), { recursive: true });
    const separate = roots.filter(
      (root) => !roots.some((other) => other !== root && `${root}/`.startsWith(`${other}/`)),
    );
    const files = [...new Set(separate)].flatMap((root) => [...walk(root, new Set(skipped))]);
    const entries = files.map((file): Entry => {
      const identity = identityOf(file) ?? '';
      if (identity === 'directory') return { path: file, identity, movedAside: false };
      return { path: file, saved: `files${file}`, identity, movedAside: isLinked(file) };
    });
    const tree = new SavedTree(directory, { roots: separate, skipped: [...skipped], entries });
    const plain = entries.flatMap(({ path: file, saved, movedAside }) =>
      saved && !movedAside ? [file] : [],
    );
    await copyAll(plain, path.join(directory, 'files'));
    // Written before any file is moved: from here on an interrupted run is undone by the next one.
    await writeWhole(path.join(directory, 'manifest.json'), Buffer.from(JSON.stringify(tree.manifest)));
    for (const { path: file, saved, movedAside } of entries) {
      if (saved === undefined || !movedAside) continue;
      const aside = path.join(directory, saved);
      await mkdir(path.dirname(aside), { recursive: true });
      await rename(file, aside);
      await copy(['-a', '--reflink=auto', '--', aside, file], '/');
    }
    return tree;
  }

  /** Undoes what an interrupted run left; false when there was nothing to undo. */
  static async recover(directory: string): Promise<boolean> {
    const file = path.join(directory, 'manifest.json');
    if (!existsSync(file)) {
      await rm(directory, { recursive: true, force: true });
      return false;
    }
    const manifest = manifestSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
    await new SavedTree(directory, manifest).restore();
    return true;
  }

  /** Whole paths of the files that are new or not the saved ones any more, without those put aside. */
  changedFiles(): string[] {
    const saved = new Map(this.manifest.entries.map((entry) => [entry.path, entry]));
    return this.presentFiles().filter((file) => {
      const entry = saved.get(file);
      return !entry || (!entry.movedAside && entry.identity !== identityOf(file));
    });
  }

  /** The saved copy of a file; undefined when there was no such file. */
  savedCopy(file: string): string | undefined {
    const entry = this.manifest.entries.find((candidate) => candidate.path === file);
    return entry?.saved === undefined ? undefined : path.join(this.directory, entry.saved);
  }

  /** Puts everything back and removes the saved copies. Files that did not change are not touched. */
  async restore(): Promise<void> {
    const known = new Set(this.manifest.entries.map(({ path: file }) => file));
    for (const file of this.presentFiles().filter((present) => !known.has(present)))
      await rm(file, { recursive: true, force: true });
    for (const entry of this.manifest.entries) await this.restoreEntry(entry);
    await rm(path.join(this.directory, 'manifest.json'), { force: true });
    await rm(this.directory, { recursive: true, force: true });
  }

  private async restoreEntry({ path: file, saved, identity }: Entry): Promise<void> {
    if (identityOf(file) === identity) return;
    if (saved === undefined) {
      await rm(file, { force: true });
      await mkdir(file, { recursive: true });
      return;
    }
    const copied = path.join(this.directory, saved);
    // An interrupted restore has put it back already.
    if (!existsSync(copied) && identityOf(copied) === undefined) return;
    if (identityOf(file) === 'directory') await rm(file, { recursive: true, force: true });
    await mkdir(path.dirname(file), { recursive: true });
    // By renaming: a process that runs the file that is there now keeps it.
    await rename(copied, file);
  }

  private presentFiles(): string[] {
    const skipped = new Set(this.manifest.skipped);
    return this.manifest.roots.flatMap((root) => (existsSync(root) ? [...walk(root, skipped)] : []));
  }
}

const filesAtOnce = 500;

async function copyAll(files: readonly string[], into: string): Promise<void> {
  for (let at = 0; at < files.length; at += filesAtOnce) {
    const part = files.slice(at, at + filesAtOnce).map((file) => path.relative('/', file));
    await copy(['-a', '--parents', '--reflink=auto', '-t', into, '--', ...part], '/');
  }
}

async function copy(words: readonly string[], directory: string): Promise<void> {
  const result = await runTool('cp', words, { directory });
  if (result.status === 0) return;
  throw new KcareError('BUILD_TOOL_FAILED', `The tree could not be kept for later: ${lastLines(result, 3)}`);
}
