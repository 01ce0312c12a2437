// The user's patches: what they say about themselves, applying them, and where the lines of patched files come from.
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import type { PatchedCve } from '../patchfile/index.js';
import { keepLineNumbers, takesLineDirectives, type LineOrigins } from './line-numbers.js';
import type { SavedTree } from './saved-tree.js';
import { lastLines, runTool } from './tools.js';

export interface SourcePatch {
  /** Whole path. */
  readonly file: string;
  readonly text: string;
  /** ISO 8601, of the last change of the file. */
  readonly date: string;
}

/** Throws FILE_MISSING. */
export async function readSourcePatches(files: readonly string[], directory: string): Promise<SourcePatch[]> {
  return await Promise.all(
    files.map(async (name) => {
      const file = path.resolve(directory, name);
      try {
        return { file, text: await readFile(file, 'utf8'), date: (await stat(file)).mtime.toISOString() };
      } catch (thrown) {
        throw new KcareError('FILE_MISSING', `The patch ${name} cannot be read.`, {}, { cause: thrown });
      }
    }),
  );
}

/** The subject of the first patch that has one, else the names of all. */
export function describePatches(patches: readonly SourcePatch[]): string {
  for (const { text } of patches) {
    const subject = /^(?:Subject|Description): *(?:\[[^\]]*\] *)?(.+)$/m.exec(headOf(text))?.[1];
    if (subject !== undefined) return subject.trim();
  }
  return patches.map(({ file }) => path.basename(file)).join(', ');
}

/** The CVE ids that names and heads of the patches mention. */
export function cvesOf(patches: readonly SourcePatch[]): PatchedCve[] {
  const ids = patches.flatMap(({ file, text }) => {
    const words = `${path.basename(file)}\n${headOf(text)}`;
    const description = describePatches([{ file, text, date: '' }]);
    return [...words.matchAll(/CVE-\d{4}-\d{4,}/gi)].map(([id]) => [id.toUpperCase(), description] as const);
  });
  return [...new Map(ids)].map(([id, description]) => ({ id, description, score: '', url: '' }));
}

/** What stands before the first change. */
const headOf = (text: string): string => text.split(/^(?:--- |diff |Index: )/m, 1)[0] ?? '';

/** Applies the patches in their order, as `patch -p1` does. Throws SOURCE_PATCH_REJECTED; the tree is then half patched. */
export async function applyPatches(patches: readonly SourcePatch[], tree: string): Promise<void> {
  for (const { file } of patches) {
    const words = ['-p1', '--forward', '--batch', '--no-backup-if-mismatch', '-r', '-', '-i', file];
    const result = await runTool('patch', words, { directory: tree });
    if (result.status === 0) continue;
    throw new KcareError(
      'SOURCE_PATCH_REJECTED',
      `${path.basename(file)} does not apply to ${tree}: ${lastLines({ ...result, stderr: '' }, 8)}`,
      { patch: file },
    );
  }
}

/** Rewrites the changed C and C++ files so that lines which the patches leave alone keep their numbers. */
export async function keepLineNumbersOf(changed: readonly string[], tree: SavedTree): Promise<void> {
  for (const file of changed.filter(takesLineDirectives)) {
    const before = tree.savedCopy(file);
    if (before === undefined) continue;
    const origins = await lineOrigins(before, file);
    // Latin-1 keeps every byte, whatever the encoding.
    const text = await readFile(file, 'latin1');
    await writeFile(file, keepLineNumbers(text, origins), 'latin1');
  }
}

/** For each line of `after` its number in `before`; undefined for lines that are new. */
export async function lineOrigins(before: string, after: string): Promise<LineOrigins> {
  const formats = ['--old-line-format=', '--new-line-format=-\n', '--unchanged-line-format=%dn\n'];
  const result = await runTool('diff', ['--text', ...formats, '--', before, after], { directory: '/' });
  if (result.status > 1) throw new KcareError('BUILD_TOOL_FAILED', `diff failed: ${lastLines(result, 3)}`);
  return result.stdout
    .trimEnd()
    .split('\n')
    .map((line) => (line === '-' ? undefined : Number(line)));
}
