// --lib-auto-update: the update that cron runs. It spreads hosts over time, follows the keys for it, and has little to say.
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { isLeftBehind, readOutcomes, type OutcomeRecord } from '../host/index.js';
import { openAgent, type Agent } from './agent.js';
import { isLibcareEnabled } from './libcare-state.js';
import { libUpdate, type LibraryOptions, type LibraryResult } from './library-update.js';

export interface AutoUpdateOptions extends LibraryOptions {
  /** The update begins after a random part of this time, milliseconds. */
  readonly jitterMs: number;
}

export type AutoUpdate =
  | { readonly kind: 'skipped'; readonly reason: string; readonly warnings: readonly string[] }
  | {
      readonly kind: 'done';
      readonly result: LibraryResult;
      /** Something happened that the last run had not reported yet: worth a mail. */
      readonly isNews: boolean;
    };

/** Throws as libUpdate. */
export async function libAutoUpdate(root: string, options: AutoUpdateOptions): Promise<AutoUpdate> {
  const early = await openAgent(root);
  const reason = await whyNot(early);
  if (reason !== undefined) return { kind: 'skipped', reason, warnings: early.warnings };
  if (options.jitterMs >= 1) await sleep(randomInt(Math.floor(options.jitterMs) + 1));
  // The administrator may have changed something meanwhile.
  const agent = await openAgent(root);
  const changed = await whyNot(agent);
  if (changed !== undefined) return { kind: 'skipped', reason: changed, warnings: agent.warnings };
  const before = await readOutcomes(agent.paths.outcomes);
  const result = await libUpdate(agent, { command: '--lib-auto-update', ...options, mode: 'auto' });
  return { kind: 'done', result, isNews: isNews(agent, result, before) };
}

async function whyNot({ paths, config }: Agent): Promise<string | undefined> {
  if (!config.autoUpdate) return `AUTO_UPDATE is off in ${paths.config}.`;
  if (!config.userspacePatches.includes('libs')) return `USERSPACE_PATCHES in ${paths.config} lacks libs.`;
  if (!(await isLibcareEnabled(paths)))
    return 'LibCare is turned off on this host; kcarectl --enable-libcare turns it on.';
  return undefined;
}

/** Mistakes in the configuration are in the log, and are told to whoever runs a command by hand. */
function isNews(
  { warnings }: Agent,
  result: LibraryResult,
  before: ReadonlyMap<number, OutcomeRecord>,
): boolean {
  if (result.warnings.some((warning) => !warnings.includes(warning))) return true;
  return result.processes.some((outcome) => {
    if (outcome.result === 'applied' || outcome.result === 'upgraded') return true;
    const last = before.get(outcome.pid);
    const isKnown = last?.code === outcome.error?.code && last?.patchset === result.patchset;
    return isLeftBehind(outcome) && !isKnown;
  });
}
