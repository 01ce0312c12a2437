// Measures one run of kcarectl over targets: pauses, time, memory of the agent and memory added to the targets.
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { runKcarectl } from '../fixtures/support/kcarectl.js';
import { readKibibytes } from '../fixtures/support/process-memory.js';
import type { Program } from '../fixtures/support/program.js';
import { parseUpdate, type UpdateOutcome } from '../fixtures/support/reports.js';

export interface Sample {
  /** Longest stop of a thread that was running, as kcare measured it, microseconds. */
  readonly runningPauseUs: number;
  /** The same for any thread. */
  readonly longestPauseUs: number;
  /** Longest time that a busy thread of a target stood still, as it saw itself; NaN without such a thread. */
  readonly seenGapUs: number;
  /** For all targets together, as kcare measured it, milliseconds. */
  readonly targetsMs: number;
  /** The whole command, from its start to its end, milliseconds. */
  readonly commandMs: number;
  /** Processor time of the command, all its threads, milliseconds. */
  readonly agentCpuMs: number;
  /** Largest resident size of the command, MiB. */
  readonly agentMib: number;
  /** ptrace(2) requests for one target, mean of all targets. */
  readonly requests: number;
  /** Processor time that the idle threads of the first target spent meanwhile, microseconds. */
  readonly targetCpuUs: number;
  /** Private dirty memory that a patch adds to a target, mean of all targets, KiB. */
  readonly addedKib: number;
}

const usageHook = path.join(import.meta.dirname, 'usage-hook.cjs');
const usageSchema = z.object({ kibibytes: z.number(), cpuUs: z.number() });

export interface Bench {
  readonly root: string;
  readonly directory: string;
}

interface Measured {
  readonly outcomes: readonly UpdateOutcome[];
  readonly commandMs: number;
  readonly agentCpuMs: number;
  readonly agentMib: number;
}

async function runMeasured(bench: Bench, parameters: readonly string[]): Promise<Measured> {
  const usage = path.join(bench.directory, 'usage');
  fs.rmSync(usage, { force: true });
  const begin = performance.now();
  const { exitCode, stdout, stderr } = await runKcarectl(bench.root, [...parameters, '--json'], {
    NODE_OPTIONS: `--require=${usageHook}`,
    KCARE_BENCH_USAGE: usage,
  });
  const commandMs = performance.now() - begin;
  if (exitCode !== 0) {
    throw new Error(`kcarectl ${parameters.join(' ')} ended with status ${exitCode}:\n${stdout}${stderr}`);
  }
  const { kibibytes, cpuUs } = usageSchema.parse(JSON.parse(fs.readFileSync(usage, 'utf8')));
  return {
    outcomes: parseUpdate(stdout),
    commandMs,
    agentCpuMs: cpuUs / 1000,
    agentMib: kibibytes / 1024,
  };
}

/** What a target sees itself, microseconds. */
interface Inside {
  /** The longest time that the busy thread stood still since the last question. */
  readonly gap: number;
  /** Processor time of the other threads so far. */
  readonly cpu: number;
}

async function look(program: Program): Promise<Inside> {
  program.writeLine('gap');
  const line = await program.waitForLine(/^gap=\d+ cpu=\d+$/);
  const [gap = NaN, cpu = NaN] = (line.match(/\d+/g) ?? []).map((digits) => Number(digits) / 1000);
  return { gap, cpu };
}

/** Private dirty memory of all `programs`, KiB. */
export const privateDirty = (programs: readonly Program[]): number =>
  programs.reduce((sum, { pid }) => sum + readKibibytes(pid, 'smaps_rollup', 'Private_Dirty'), 0);

/**
 * Patches all `programs`, measures, and unpatches them. `dirtyBefore` is their private dirty memory before they were
 * patched for the first time: a page of code that was written once stays a private copy, also after unloading.
 */
export async function measureUpdate(
  bench: Bench,
  programs: readonly Program[],
  hasBusyThread: boolean,
  dirtyBefore: number,
): Promise<Sample> {
  const pids = programs.map(({ pid }) => String(pid));
  const [first] = programs;
  if (!first) throw new Error('There is no target.');
  // Without a busy thread, it is the only one that answers: what that costs is seen without a patch first.
  const earlier = await look(first);
  const before = await look(first);
  const { outcomes, commandMs, agentCpuMs, agentMib } = await runMeasured(bench, [
    '--lib-update',
    '--pid',
    ...pids,
  ]);
  const after = await look(first);
  const added = privateDirty(programs) - dirtyBefore;
  const applied = outcomes.filter(({ result }) => result === 'applied');
  if (applied.length !== programs.length) {
    throw new Error(`${applied.length} of ${programs.length} targets were patched.`);
  }
  await runMeasured(bench, ['--lib-unload', '--pid', ...pids]);
  const largest = (pick: (outcome: UpdateOutcome) => number | undefined): number =>
    Math.max(...applied.map((outcome) => pick(outcome) ?? NaN)) / 1000;
  return {
    runningPauseUs: largest(({ pauseNs }) => pauseNs?.running),
    longestPauseUs: largest(({ pauseNs }) => pauseNs?.longest),
    seenGapUs: hasBusyThread ? after.gap : NaN,
    targetsMs: applied.reduce((sum, { wallMs }) => sum + wallMs, 0),
    commandMs,
    agentCpuMs,
    agentMib,
    requests: applied.reduce((sum, outcome) => sum + (outcome.ptraceRequests ?? 0), 0) / applied.length,
    targetCpuUs: Math.max(0, after.cpu - before.cpu - (hasBusyThread ? 0 : before.cpu - earlier.cpu)),
    addedKib: added / programs.length,
  };
}
