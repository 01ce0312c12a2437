// Tries a patch in processes of its own: apply, run what shows the fault, unload, and look whether all is as it was.
import { spawn } from 'node:child_process';
import os from 'node:os';
import { apply, unload, type PatchToApply, type TargetReport } from '../engine/index.js';
import type { FoundObject } from './find-object.js';
import { TrialGate, type GatedProcess } from './trial-gate.js';
import { differences, takePicture } from './trial-memory.js';
import { startScratch } from './trial-scratch.js';
import { inTrialPlace, type TrialPlace } from './trial-place.js';

export interface TrialOptions {
  /** Shell commands that end with 1 where the fault is there and with 0 where it is not. */
  readonly triggers: readonly string[];
  /** Shell command whose exit status must not depend on the patch. */
  readonly suite?: string | undefined;
  /** How long a busy process is waited for, milliseconds. */
  readonly waitMs: number;
  readonly onProgress?: (message: string) => void;
}

/** The scratch process: it does nothing but hold the object. */
export interface ScratchResult {
  readonly applied: TargetReport;
  readonly unloaded: TargetReport | undefined;
  /** Code that was compared, bytes. */
  readonly codeSize: number;
  /** What is not as it was; empty when all is. */
  readonly differences: readonly string[];
}

/** One command without the patch and with it. */
export interface CommandResult {
  readonly command: string;
  /** Exit statuses, as a shell tells them. */
  readonly before: number;
  readonly after: number;
  /** Processes that had the object, in the run with the patch. */
  readonly processes: readonly GatedProcess[];
  readonly isAsExpected: boolean;
}

export interface TrialResult {
  readonly verdict: 'passed' | 'failed';
  readonly scratch: ScratchResult;
  readonly triggers: readonly CommandResult[];
  readonly suite: CommandResult | undefined;
}

/** Throws BUILD_TOOL_FAILED, NOT_PERMITTED, TARGET_GONE; what the patch does wrong is in the result. */
export function tryPatch(
  patch: PatchToApply,
  { shipped, file }: FoundObject,
  options: TrialOptions,
): Promise<TrialResult> {
  return inTrialPlace(file, async (place) => {
    const tell = options.onProgress ?? ((): void => undefined);
    tell('applying and unloading in a scratch process');
    const scratch = await tryInScratch(patch, place, shipped.binding.isProgram, options.waitMs);
    const triggers: CommandResult[] = [];
    for (const command of options.triggers) {
      tell(`running without and with the patch: ${command}`);
      const isFixed = (before: number, after: number): boolean => before === 1 && after === 0;
      triggers.push(await runBoth(command, patch, place, options.waitMs, isFixed));
    }
    let suite: CommandResult | undefined;
    if (options.suite !== undefined) {
      tell(`running without and with the patch: ${options.suite}`);
      suite = await runBoth(options.suite, patch, place, options.waitMs, (before, after) => before === after);
    }
    const isWell =
      scratch.applied.result === 'applied' &&
      scratch.unloaded?.result === 'unloaded' &&
      scratch.differences.length === 0 &&
      [...triggers, ...(suite ? [suite] : [])].every(({ isAsExpected }) => isAsExpected);
    return { verdict: isWell ? 'passed' : 'failed', scratch, triggers, suite };
  });
}

async function tryInScratch(
  patch: PatchToApply,
  place: TrialPlace,
  isProgram: boolean,
  waitMs: number,
): Promise<ScratchResult> {
  const scratch = await startScratch(place, isProgram);
  try {
    const options = { waitMs, dryRun: false, intentDirectory: place.directory };
    const before = takePicture(scratch.pid);
    const applied = await apply(scratch.pid, [patch], options);
    const isApplied = applied.result === 'applied';
    const unloaded = isApplied ? await unload(scratch.pid, options) : undefined;
    const after = takePicture(scratch.pid);
    return { applied, unloaded, codeSize: before.codeSize, differences: differences(before, after) };
  } finally {
    await scratch.end();
  }
}

async function runBoth(
  command: string,
  patch: PatchToApply,
  place: TrialPlace,
  waitMs: number,
  isExpected: (before: number, after: number) => boolean,
): Promise<CommandResult> {
  const once = async (
    isPatching: boolean,
  ): Promise<{ status: number; processes: readonly GatedProcess[] }> => {
    const gate = await TrialGate.open(place, patch, { isPatching, waitMs });
    try {
      return { status: await exitStatus(command, place), processes: gate.processes };
    } finally {
      await gate.close();
    }
  };
  const [before, after] = [await once(false), await once(true)];
  const { processes } = after;
  const isEachPatched = processes.length > 0 && processes.every(({ report }) => report?.result === 'applied');
  return {
    command,
    before: before.status,
    after: after.status,
    processes,
    isAsExpected: isEachPatched && isExpected(before.status, after.status),
  };
}

/** What the command prints goes to standard error: standard output is for the result. */
function exitStatus(command: string, { environment }: TrialPlace): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn('/bin/sh', ['-c', command], {
      stdio: ['ignore', process.stderr, process.stderr],
      env: { ...process.env, ...environment },
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      resolve(code ?? 128 + (signal === null ? 0 : os.constants.signals[signal]));
    });
  });
}
