// Patches that root names on the command line: read from files instead of a feed, for processes named by id.
import { createHash } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { asKcareError, exitCodes, KcareError } from '../base/errors.js';
import type { PatchToApply } from '../engine/index.js';
import { readSafeFile, safeDirectory } from '../base/safe-files.js';
import { discover, exitCodeOf, updateAll, type Discovery, type ProcessOutcome } from '../host/index.js';
import { fileExtension, readPatch } from '../patchfile/index.js';
import { openBlacklist, type Agent } from './agent.js';
import { untilSignalled } from './end-signals.js';
import { locked, type LibraryOptions, type LibraryResult } from './library-update.js';

/** Stands where patches of a feed name their patchset. */
export const localPatchset = 'local';

export interface LocalOptions extends LibraryOptions {
  readonly pids: readonly number[];
  /** Patch files, or directories with patch files. */
  readonly files: readonly string[];
}

/**
 * Applies patch files to processes. The files carry no signature: they are trusted because root names them and nobody
 * else can change them (R10). Throws NOT_PERMITTED, FILE_MISSING, UNSAFE_MODE, PATCH_MALFORMED, USAGE, LOCK_HELD.
 */
export async function patchLocally(agent: Agent, options: LocalOptions): Promise<LibraryResult> {
  if (process.geteuid?.() !== 0)
    throw new KcareError('NOT_PERMITTED', 'Only root can apply patches that nobody has signed.');
  const patches = await readLocalPatches(options.files);
  return await locked(agent, 'patch', options, async () => {
    const { blacklist, warnings } = await openBlacklist(agent.paths);
    const discovery = discover({ pids: options.pids, blacklist, wanted: (buildId) => patches.has(buildId) });
    const run = { ...options, intentDirectory: agent.paths.intents };
    const done = await untilSignalled((ending) => updateAll(discovery, patches, { ...run, ending }));
    const processes = [...done, ...withoutObject(options.pids, done, discovery)];
    const isBlacklisted = processes.some(({ result }) => result === 'blacklisted');
    const exitCode = exitCodeOf(processes);
    return {
      dryRun: options.dryRun,
      patchset: localPatchset,
      processes,
      warnings,
      exitCode: exitCode === exitCodes.done && isBlacklisted ? exitCodes.refused : exitCode,
    };
  });
}

/** R6: a process that was named and has nothing to patch must not look as if it were patched. */
function withoutObject(
  pids: readonly number[],
  done: readonly ProcessOutcome[],
  { unreadable }: Discovery,
): ProcessOutcome[] {
  const known = new Set([...done.map(({ pid }) => pid), ...unreadable.map(({ pid }) => pid)]);
  return [...new Set(pids)]
    .filter((pid) => !known.has(pid))
    .map((pid) => ({
      pid,
      comm: '',
      result: 'refused',
      objects: [],
      error: new KcareError('BUILD_ID_MISMATCH', `process ${pid} runs no object that these patches are for`),
      wallMs: 0,
    }));
}

async function readLocalPatches(names: readonly string[]): Promise<Map<string, PatchToApply>> {
  const patches = new Map<string, PatchToApply & { readonly file: string }>();
  for (const file of names.flatMap(patchFilesOf)) {
    await safeDirectory(dirname(file));
    const bytes = await readSafeFile(file);
    const patch = readPatch(bytes);
    const other = patches.get(patch.buildId);
    if (other)
      throw new KcareError('USAGE', `${other.file} and ${file} are for the same object; name one of them.`);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    patches.set(patch.buildId, { patch, patchset: localPatchset, sha256, file });
  }
  return patches;
}

function patchFilesOf(name: string): string[] {
  const whole = resolve(name);
  let isDirectory: boolean;
  try {
    isDirectory = statSync(whole).isDirectory();
  } catch (thrown) {
    throw asKcareError(thrown);
  }
  if (!isDirectory) return [whole];
  const files = readdirSync(whole).filter((file) => file.endsWith(fileExtension));
  if (files.length === 0)
    throw new KcareError('FILE_MISSING', `There is no patch (*${fileExtension}) in ${whole}.`);
  return files.sort().map((file) => join(whole, file));
}
