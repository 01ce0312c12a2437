// What --info, --patch-info, --uname, --check and --status say of the kernel.
import { KcareError } from '../base/errors.js';
import { inspectKernel, livePatches, whyUnpatchable, type Kernel } from '../kernel/index.js';
import type { KernelCve } from '../patchfile/index.js';
import { openAgent, readSettings, type Settings } from './agent.js';
import { kernelFeed, type KernelSource } from './kernel-source.js';
import { appliedKernelPatch } from './kernel-state.js';
import { entryFor } from './kernel-update.js';

export interface KernelInfo {
  readonly release: string;
  readonly version: string;
  readonly buildId: string | undefined;
  /** Why this kernel cannot be patched. */
  readonly unsupported: string | undefined;
  readonly effective: string;
  readonly module: string | undefined;
  readonly level: number | undefined;
  readonly isInTransition: boolean;
  readonly patchset: string | undefined;
  readonly loaded: string | undefined;
  readonly cves: readonly KernelCve[];
  /** Live patches of others. */
  readonly others: readonly string[];
}

/** Throws USAGE, CONFIG_INVALID, UNSAFE_MODE. */
export async function kernelInfo(root: string): Promise<KernelInfo> {
  const { paths } = await readSettings(root);
  const kernel = inspectKernel();
  const applied = await appliedKernelPatch(paths);
  return {
    release: kernel.release,
    version: kernel.version,
    buildId: kernel.buildId,
    unsupported: whyUnpatchable(kernel)?.message,
    effective: applied?.record?.effective ?? kernel.release,
    module: applied?.live.name,
    level: applied?.live.level,
    isInTransition: applied?.live.isInTransition ?? false,
    patchset: applied?.record?.patchset,
    loaded: applied?.record?.loaded,
    cves: applied?.record?.cves ?? [],
    others: livePatches()
      .filter(({ level }) => level === undefined)
      .map(({ name }) => name),
  };
}

/** `unsupported`: the kernel cannot be patched, or the feed has nothing for it. */
export type KernelStatus = 'latest' | 'none' | 'outdated' | 'unsupported';

export interface KernelStanding {
  readonly status: KernelStatus;
  readonly level: number | undefined;
  /** Undefined when it cannot be known. */
  readonly newestLevel: number | undefined;
  readonly reason: string | undefined;
}

/** Compares what is applied with what the feed has. Throws the errors of the feed. */
export async function kernelStanding(root: string, source: KernelSource): Promise<KernelStanding> {
  const kernel = inspectKernel();
  const problem = whyUnpatchable(kernel);
  if (problem) return standing('unsupported', undefined, undefined, problem.message);
  const agent = source.from === 'cache' ? await readSettings(root) : await openAgent(root);
  const level = (await appliedKernelPatch(agent.paths))?.live.level;
  try {
    const newest = await newestLevel(agent, kernel, source);
    if (newest === undefined) return standing(level === undefined ? 'none' : 'latest', level, newest);
    if (level === undefined) return standing('none', level, newest);
    return standing(level === newest ? 'latest' : 'outdated', level, newest);
  } catch (thrown) {
    if (thrown instanceof KcareError && thrown.code === 'KERNEL_UNKNOWN')
      return standing('unsupported', level, undefined, thrown.message);
    throw thrown;
  }
}

function standing(
  status: KernelStatus,
  level: number | undefined,
  newestLevel: number | undefined,
  reason?: string,
): KernelStanding {
  return { status, level, newestLevel, reason };
}

async function newestLevel(
  agent: Settings,
  kernel: Kernel,
  source: KernelSource,
): Promise<number | undefined> {
  const { feed } = await kernelFeed(agent, source);
  return feed && entryFor(feed, kernel).level;
}
