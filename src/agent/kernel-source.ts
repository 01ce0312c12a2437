// Where the kernel's patch comes from: the server or the verified cache, and the patchset that the config allows.
import { KcareError } from '../base/errors.js';
import type { FeedState, SelectPatchset } from '../feed/index.js';
import type { Settings } from './agent.js';
import type { AgentConfig } from './config.js';
import { patchsetSelection } from './selection.js';
import { userAgent } from './version.js';

export interface KernelSource {
  /** `policy`: UPDATE_POLICY decides. `cache`: nothing is fetched or changed. */
  readonly from: 'server' | 'policy' | 'cache';
  /** Nobody asked for it by hand: the keys with AUTO_ count where they are set. */
  readonly isAutomatic: boolean;
  /** Instead of PREFIX. */
  readonly prefix?: string | undefined;
}

const timeoutMs = 30_000;

/** The feed of kernel patchsets; undefined: only the cache may be used, and nothing is cached. Throws the errors of the feed. */
export async function kernelFeed(
  agent: Settings,
  source: KernelSource,
): Promise<{ readonly feed: FeedState | undefined; readonly warnings: readonly string[] }> {
  const { paths, config } = agent;
  if (config.patchServer === undefined)
    throw new KcareError(
      'CONFIG_INVALID',
      `PATCH_SERVER is not set in ${paths.config}, so there is nowhere to get patches from.`,
    );
  const prefix = feedName(source.prefix ?? config.prefix, config.patchType);
  const options = {
    server: config.patchServer,
    cacheDirectory: paths.cache,
    keyDirectory: paths.keys,
    kind: 'K' as const,
    select: kernelSelection(config, source, new Date()),
    ...(prefix !== undefined && { prefix }),
  };
  const fromServer = async (): Promise<FeedState> => {
    const { updateFeed } = await import('../feed/update.js');
    return await updateFeed({
      ...options,
      proxy: {
        ...(config.httpProxy !== undefined && { http: config.httpProxy }),
        ...(config.httpsProxy !== undefined && { https: config.httpsProxy }),
      },
      timeoutMs,
      userAgent: userAgent(),
    });
  };
  const fromCache = async (): Promise<FeedState | undefined> => {
    const { cachedFeed } = await import('../feed/client.js');
    try {
      return await cachedFeed(options);
    } catch (thrown) {
      if (thrown instanceof KcareError && thrown.code === 'FEED_NOT_CACHED') return undefined;
      throw thrown;
    }
  };
  if (source.from === 'server') return { feed: await fromServer(), warnings: [] };
  if (source.from === 'cache') return { feed: await fromCache(), warnings: [] };
  switch (config.updatePolicy) {
    case 'LOCAL':
      return { feed: await fromCache(), warnings: [] };
    case 'LOCAL_FIRST':
      return { feed: (await fromCache()) ?? (await fromServer()), warnings: [] };
    case 'REMOTE':
      try {
        return { feed: await fromServer(), warnings: [] };
      } catch (thrown) {
        // At boot the network may not be there yet.
        if (!(thrown instanceof KcareError) || thrown.code !== 'FEED_UNREACHABLE') throw thrown;
        const feed = await fromCache();
        if (feed === undefined) throw thrown;
        return { feed, warnings: [`${thrown.message} The cached patchset is used.`] };
      }
  }
}

/** Kernel patches of a type are a feed of their own: `extra`, and beside the feed `test`, `test-extra`. */
function feedName(prefix: string | undefined, type: string | undefined): string | undefined {
  return type === undefined || prefix === undefined ? (prefix ?? type) : `${prefix}-${type}`;
}

/** The rules of the config, for patchsets of kernels. Throws CONFIG_INVALID. */
function kernelSelection(config: AgentConfig, { isAutomatic }: KernelSource, now: Date): SelectPatchset {
  const autoSticky = isAutomatic ? config.autoStickyPatchset : undefined;
  const autoDelay = isAutomatic ? config.autoUpdateDelayMs : undefined;
  const sticky = autoSticky ?? config.stickyPatchset;
  const updateDelayMs = autoDelay ?? config.updateDelayMs;
  const others = patchsetSelection({ ...config, stickyPatchset: undefined, updateDelayMs }, now);
  const isAllowed = (name: string): boolean => !sticky?.startsWith('K') || name <= sticky;
  return (patchsets) => others(patchsets.filter(({ name }) => isAllowed(name)));
}
