// Where patches come from: the patch server, the trusted keys, and what is cached.
import { existsSync } from 'node:fs';
import type { Settings } from '../agent/agent.js';
import { userAgent } from '../agent/version.js';
import { asKcareError } from '../base/errors.js';
import { FeedFetcher, serverUrl, withoutPassword } from '../feed/fetcher.js';
import { feedPrefix, limits } from '../feed/names.js';
import type { Check } from './coverage.js';

const area = 'libraries';
const timeoutMs = 10_000;

export async function feedChecks(settings: Settings, offline: boolean): Promise<Check[]> {
  return [await server(settings, offline), await keys(settings)];
}

async function server({ config, paths }: Settings, offline: boolean): Promise<Check> {
  const name = 'patch-server';
  if (config.patchServer === undefined) {
    const advice = `Set PATCH_SERVER in ${paths.config}.`;
    return { area, name, state: 'not-covered', finding: 'No patch server is configured.', advice };
  }
  const shown = shownServer(config.patchServer);
  if (offline) {
    const finding = `The patch server ${shown} was not asked (--offline).`;
    return { area, name, state: 'unknown', finding };
  }
  try {
    const base = new URL(`${feedPrefix(config.prefix)}/`, serverUrl(config.patchServer));
    const proxy = {
      ...(config.httpProxy !== undefined && { http: config.httpProxy }),
      ...(config.httpsProxy !== undefined && { https: config.httpsProxy }),
    };
    const fetcher = new FeedFetcher({ timeoutMs, userAgent: userAgent(), proxy, retries: 0 });
    await fetcher.downloadBytes(new URL('metadata/timestamp.json', base).href, limits.timestamp);
    return { area, name, state: 'covered', finding: `The patch server ${shown} answers.` };
  } catch (thrown) {
    const { message } = asKcareError(thrown);
    const advice = 'Check PATCH_SERVER, PREFIX, the proxy and the network.';
    return {
      area,
      name,
      state: 'not-covered',
      finding: `The patch server ${shown} does not answer: ${message}`,
      advice,
    };
  }
}

function shownServer(text: string): string {
  try {
    return withoutPassword(serverUrl(text).href);
  } catch {
    return '(no URL)';
  }
}

async function keys({ paths }: Settings): Promise<Check> {
  const name = 'keys';
  try {
    // OpenPGP takes long to load.
    const { listKeys } = await import('../feed/keyring.js');
    const trusted = existsSync(paths.keys) ? await listKeys(paths.keys) : [];
    if (trusted.length > 0) {
      const list = trusted.map(({ fingerprint }) => fingerprint).join(', ');
      return { area, name, state: 'covered', finding: `Trusted keys: ${list}.` };
    }
    const advice = 'Import the key of the publisher: kcarectl --import-key PATH.';
    return { area, name, state: 'not-covered', finding: 'No key is trusted.', advice };
  } catch (thrown) {
    const { message, hint } = asKcareError(thrown);
    return {
      area,
      name,
      state: 'unknown',
      finding: `The trusted keys cannot be read: ${message}`,
      advice: hint,
    };
  }
}
