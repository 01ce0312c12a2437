// --update and --unload: the verified patch of the feed for exactly this kernel, under the agent's lock.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { KcareError, asKcareError } from '../base/errors.js';
import { readSafeFile, safeDirectory } from '../base/safe-files.js';
import type { FeedState, PatchEntry, VerifiedPatchFile } from '../feed/index.js';
import {
  applySysctls,
  finishTransition,
  inspectKernel,
  livePatches,
  loadCompanion,
  loadLivePatch,
  parseSysctls,
  unloadLivePatch,
  whyUnpatchable,
  type Blocker,
  type FollowOptions,
  type Kernel,
} from '../kernel/index.js';
import { readKernelModule, type KernelModule } from '../patchfile/index.js';
import type { Agent } from './agent.js';
import { untilSignalled } from './end-signals.js';
import { kernelFeed, type KernelSource } from './kernel-source.js';
import { appliedKernelPatch, crashedLoad, marked, rememberPatch } from './kernel-state.js';
import { withLock } from './lock.js';

export type Freezer = 'none' | 'smart' | 'full';

export interface KernelOptions {
  readonly command: string;
  readonly force: boolean;
  /** Default: PATCH_METHOD. */
  readonly freezer?: Freezer | undefined;
  readonly onProgress?: ((blockers: readonly Blocker[]) => void) | undefined;
}

export interface KernelResult {
  readonly action: 'loaded' | 'kept' | 'unloaded' | 'nothing';
  readonly release: string;
  /** Undefined: no patch is applied now. */
  readonly level: number | undefined;
  readonly patchset: string | undefined;
  readonly effective: string;
  /** Milliseconds from the load to the last task. */
  readonly tookMs: number | undefined;
  /** Tasks that --force passed over. */
  readonly forcedOver: readonly Blocker[];
  readonly warnings: readonly string[];
}

const lockWaitMs = 30_000;

/**
 * How long tasks may hold a change up before it is turned back, milliseconds. The kernel wakes the tasks in the way every
 * 15 s, so `none` lets it wake none, `smart` those that are in the way twice, `full` six times.
 */
const waitsMs: Readonly<Record<Freezer, number>> = { none: 10_000, smart: 40_000, full: 100_000 };

/**
 * Brings the running kernel to the level that the feed has for it. Throws KERNEL_UNSUPPORTED, KERNEL_UNKNOWN, the other
 * KERNEL_ errors, those of the feed, LOCK_HELD, NOT_PERMITTED; after each the kernel is as it was.
 */
export async function kernelUpdate(
  agent: Agent,
  source: KernelSource,
  options: KernelOptions,
): Promise<KernelResult> {
  const kernel = patchableKernel();
  return await lockedForKernel(agent, options.command, async () => {
    const { feed, warnings } = await kernelFeed(agent, source);
    const applied = await appliedKernelPatch(agent.paths);
    const now = {
      release: kernel.release,
      level: applied?.live.level,
      patchset: applied?.record?.patchset,
      effective: applied?.record?.effective ?? kernel.release,
      tookMs: undefined,
      forcedOver: [],
    };
    if (feed === undefined) return { action: 'nothing', ...now, warnings };
    const entry = entryFor(feed, kernel);
    const follow = followOptions(agent, options);
    if (applied?.live.isInTransition) await finishTransition(applied.live, follow);
    if (applied && applied.live.level === entry.level && applied.record !== undefined)
      return { action: 'kept', ...now, warnings };
    if (source.isAutomatic) await refuseAfterCrash(agent, entry);
    const { module, file } = await fetchModule(feed, entry, kernel);
    const companion = await loadCompanion(kernel);
    const done = await marked(agent.paths, { sha256: file.sha256, module: module.name }, () =>
      untilSignalled((ending) =>
        applied?.live.level === entry.level
          ? Promise.resolve({ tookMs: 0, forcedOver: [] })
          : loadLivePatch(module, file.bytes, { ...follow, ending }),
      ),
    );
    const remembered = await rememberPatch(agent.paths, {
      module: module.name,
      level: module.level,
      patchset: file.patchset,
      effective: module.effective,
      loaded: new Date().toISOString(),
      sha256: file.sha256,
      cves: module.cves,
    });
    const switches = await applySwitches(agent);
    return {
      action: 'loaded',
      release: kernel.release,
      level: module.level,
      patchset: file.patchset,
      effective: module.effective,
      ...done,
      warnings: [...warnings, ...(companion === undefined ? [] : [companion]), ...remembered, ...switches],
    };
  });
}

/** Puts the kernel's own code back. Throws KERNEL_BUSY, LOCK_HELD, NOT_PERMITTED. */
export async function kernelUnload(agent: Agent, options: KernelOptions): Promise<KernelResult> {
  const kernel = inspectKernel();
  return await lockedForKernel(agent, options.command, async () => {
    const own = livePatches().filter(({ level }) => level !== undefined);
    const plain = {
      release: kernel.release,
      level: undefined,
      patchset: undefined,
      effective: kernel.release,
      tookMs: undefined,
      forcedOver: [],
    };
    if (own.length === 0) return { action: 'nothing', ...plain, warnings: [] };
    const follow = followOptions(agent, options);
    let [tookMs, forcedOver]: [number, Blocker[]] = [0, []];
    for (const patch of own) {
      const done = await untilSignalled((ending) => unloadLivePatch(patch, { ...follow, ending }));
      tookMs += done.tookMs;
      forcedOver = [...forcedOver, ...done.forcedOver];
    }
    const warnings = await rememberPatch(agent.paths);
    return { action: 'unloaded', ...plain, tookMs, forcedOver, warnings };
  });
}

/** Throws NOT_PERMITTED, KERNEL_UNSUPPORTED, KERNEL_OTHER_PATCHER. */
function patchableKernel(): Kernel {
  const kernel = inspectKernel();
  const problem = whyUnpatchable(kernel);
  if (problem) throw problem;
  const others = livePatches().filter((one) => one.level === undefined);
  if (others.length > 0)
    throw new KcareError(
      'KERNEL_OTHER_PATCHER',
      `Another live patch is active in the kernel: ${others.map(({ name }) => name).join(', ')}.`,
    );
  return kernel;
}

/** The patch that the feed has for this build of the kernel. Throws KERNEL_UNKNOWN. */
export function entryFor(feed: FeedState, { release, buildId }: Kernel): PatchEntry {
  const entry = feed.patches.find((one) => one.buildId === buildId);
  if (entry) return entry;
  const where = feed.patchset === undefined ? 'no patchset for kernels' : `no patch in ${feed.patchset}`;
  throw new KcareError(
    'KERNEL_UNKNOWN',
    `The feed "${feed.prefix}" has ${where} for the kernel ${release} (build-id ${buildId ?? 'unknown'}).`,
    { release, buildId },
  );
}

/** R4: only verified bytes are read. R3: only for exactly this build and release. Throws KERNEL_PATCH_MISMATCH and others. */
async function fetchModule(
  feed: FeedState,
  entry: PatchEntry,
  kernel: Kernel,
): Promise<{ readonly module: KernelModule; readonly file: VerifiedPatchFile }> {
  const file = await feed.patchFor(entry.buildId);
  if (!file) throw new KcareError('INTERNAL', 'The patch of the feed vanished.');
  const module = readKernelModule(file.bytes);
  const wrong = (what: string): KcareError =>
    new KcareError('KERNEL_PATCH_MISMATCH', `The module ${module.name} ${what}.`);
  if (module.buildId !== kernel.buildId) throw wrong(`is for the kernel with build-id ${module.buildId}`);
  if (module.release !== kernel.release)
    throw wrong(`is built for ${module.release}, and ${kernel.release} is running`);
  if (module.level !== entry.level)
    throw wrong(`is level ${module.level}, not ${entry.level} as the feed says`);
  return { module, file };
}

async function refuseAfterCrash({ paths }: Agent, { sha256 }: PatchEntry): Promise<void> {
  const crash = await crashedLoad(paths);
  if (!crash || (crash.sha256 !== '' && crash.sha256 !== sha256)) return;
  throw new KcareError(
    'KERNEL_RETRY_BLOCKED',
    `The machine stopped while the module ${crash.module} was being loaded (${crash.begun}); it is not loaded again automatically.`,
  );
}

function followOptions({ config }: Agent, options: KernelOptions): FollowOptions {
  const byMethod = { normal: 'smart', smart: 'smart', nofreeze: 'none' } as const;
  const freezer = options.freezer ?? byMethod[config.patchMethod];
  return { waitMs: waitsMs[freezer], force: options.force, onProgress: options.onProgress };
}

async function applySwitches({ paths, config }: Agent): Promise<string[]> {
  if (!config.loadKcareSysctl || !existsSync(paths.sysctl)) return [];
  await safeDirectory(dirname(paths.sysctl));
  const { settings, problems } = parseSysctls((await readSafeFile(paths.sysctl)).toString('utf8'));
  return [...problems, ...applySysctls(settings)].map((problem) => `${paths.sysctl}, ${problem}.`);
}

async function lockedForKernel(
  { paths, logger, warnings, logProblems }: Agent,
  command: string,
  action: () => Promise<KernelResult>,
): Promise<KernelResult> {
  if (process.geteuid?.() !== 0) throw new KcareError('NOT_PERMITTED', 'Only root can patch the kernel.');
  await safeDirectory(dirname(paths.lock));
  try {
    const result = await withLock(paths.lock, { command: `kcarectl ${command}`, waitMs: lockWaitMs }, action);
    logger.info({ command, ...result }, 'kernel');
    return { ...result, warnings: [...warnings, ...logProblems(), ...result.warnings] };
  } catch (thrown) {
    logger.error({ command, error: asKcareError(thrown).toJSON() }, 'failed');
    throw thrown;
  }
}
