// Which patchset of the feed this host may use: the newest, unless the config holds it back.
import { KcareError } from '../base/errors.js';
import type { ReleasedPatchset, SelectPatchset } from '../feed/index.js';
import type { AgentConfig } from './config.js';

/** `auto`: runs that nobody asked for by hand, such as by cron and at boot. */
export type UpdateMode = 'manual' | 'auto';

/**
 * In `auto` mode AUTO_STICKY_PATCHSET and AUTO_UPDATE_DELAY replace the keys without AUTO_, where they are set. Throws
 * CONFIG_INVALID when the config asks for a rule that cannot be followed: newer patches than allowed must not be used.
 */
export function patchsetSelection(
  config: AgentConfig,
  now: Date,
  mode: UpdateMode = 'manual',
): SelectPatchset {
  const isAuto = mode === 'auto';
  const sticky = isAuto ? (config.autoStickyPatchset ?? config.stickyPatchset) : config.stickyPatchset;
  const delayMs = isAuto ? (config.autoUpdateDelayMs ?? config.updateDelayMs) : config.updateDelayMs;
  const rules = [stickyDate(config), stickyName(sticky), released(delayMs, now)];
  return (patchsets) => patchsets.filter((patchset) => rules.every((rule) => rule(patchset))).at(-1)?.name;
}

type Rule = (patchset: ReleasedPatchset) => boolean;

const always: Rule = () => true;

function stickyDate({ stickyPatch }: AgentConfig): Rule {
  if (!stickyPatch) return always;
  if (stickyPatch.kind === 'key') {
    throw new KcareError(
      'CONFIG_INVALID',
      'STICKY_PATCH=KEY needs a licence server, which kcare does not use; give a date instead.',
    );
  }
  const { date } = stickyPatch;
  return (patchset) => new Date(patchset.released).toISOString().slice(0, 10) <= date;
}

function stickyName(stickyPatchset: string | undefined): Rule {
  // Names of kernel patchsets begin with K and say nothing about those for user space.
  if (!stickyPatchset?.startsWith('U')) return always;
  return (patchset) => patchset.name <= stickyPatchset;
}

function released(delayMs: number | undefined, now: Date): Rule {
  if (delayMs === undefined) return always;
  return (patchset) => now.getTime() - Date.parse(patchset.released) >= delayMs;
}
