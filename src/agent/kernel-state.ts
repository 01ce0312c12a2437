// What the agent remembers of the kernel: the record of what is loaded, and the mark of a load that was not finished.
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { asKcareError } from '../base/errors.js';
import { readSafeFile, writeAtomically } from '../base/safe-files.js';
import { record, text, type Shaped } from '../base/shapes.js';
import {
  companionRecord,
  livePatches,
  parseRecord,
  printRecord,
  writeRecord,
  type LivePatch,
  type PatchRecord,
} from '../kernel/index.js';
import type { AgentPaths } from './paths.js';

export interface AppliedKernelPatch {
  /** As the kernel shows it. */
  readonly live: LivePatch;
  /** Undefined: it was loaded, but nobody remembers from where. */
  readonly record: PatchRecord | undefined;
}

/** The truth is the kernel's own list of live patches; a record counts only for what is in it. */
export async function appliedKernelPatch(paths: AgentPaths): Promise<AppliedKernelPatch | undefined> {
  const own = livePatches().filter(({ level, isEnabled }) => level !== undefined && isEnabled);
  // In a transition from one to the other, both are enabled; the one that changes is the newer one.
  const live = own.find(({ isInTransition }) => isInTransition) ?? own[0];
  if (!live) return undefined;
  const remembered = [companionRecord(), await fileRecord(paths)];
  return { live, record: remembered.find((one) => one?.module === live.name) };
}

async function fileRecord({ kernelRecord }: AgentPaths): Promise<PatchRecord | undefined> {
  if (!existsSync(kernelRecord)) return undefined;
  return parseRecord((await readSafeFile(kernelRecord)).toString('utf8'));
}

/** Notes what is loaded, in the kernel and in /run; returns what went wrong with it. */
export async function rememberPatch({ kernelRecord }: AgentPaths, patch?: PatchRecord): Promise<string[]> {
  const problems: string[] = [];
  const attempt = async (what: string, action: () => Promise<void> | void): Promise<void> => {
    try {
      await action();
    } catch (thrown) {
      problems.push(`${what} cannot be written: ${asKcareError(thrown).message}`);
    }
  };
  await attempt('/dev/kcare', () => {
    writeRecord(patch);
  });
  await attempt(kernelRecord, () => writeAtomically(kernelRecord, Buffer.from(printRecord(patch))));
  return problems;
}

const markShape = record({ sha256: text(64), module: text(64), boot: text(64), begun: text(64) });
export type LoadMark = Shaped<typeof markShape>;

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** A load that this host did not survive: begun in an earlier boot and never finished. */
export async function crashedLoad({ kernelMark }: AgentPaths): Promise<LoadMark | undefined> {
  if (!existsSync(kernelMark)) return undefined;
  try {
    const mark = markShape(JSON.parse((await readSafeFile(kernelMark)).toString('utf8')));
    return mark.boot === bootId() ? undefined : mark;
  } catch {
    // Half a mark says no more than that there was a load.
    return { sha256: '', module: 'of unknown name', boot: '', begun: 'an unknown time' };
  }
}

/** Runs `load`; while it runs, and after a crash in it, the mark is on the disk. */
export async function marked<Result>(
  { kernelMark }: AgentPaths,
  { sha256, module }: { readonly sha256: string; readonly module: string },
  load: () => Promise<Result>,
): Promise<Result> {
  const mark: LoadMark = { sha256, module, boot: bootId(), begun: new Date().toISOString() };
  await mkdir(dirname(kernelMark), { recursive: true, mode: 0o755 });
  await writeAtomically(kernelMark, Buffer.from(`${JSON.stringify(mark)}\n`));
  try {
    return await load();
  } finally {
    await rm(kernelMark, { force: true });
  }
}
