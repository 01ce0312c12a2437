// Holds this host at what was released by a date, and says which patchset that is.
import { KcareError } from '../base/errors.js';
import { readSettings } from './agent.js';
import { parseConfig } from './config.js';
import { cachedFeedOf } from './known-patches.js';
import { patchsetSelection } from './selection.js';
import { setSetting } from './set-setting.js';

export interface StickyChange {
  /** ISO 8601 date; null when none holds this host any more. */
  readonly stickyPatch: string | null;
  /** What libraries follow now, by the feed as it was last verified; null when it has none, or nothing is known of it. */
  readonly patchset: string | null;
  /** Why nothing is known of the feed, or why that may be old. */
  readonly problem?: KcareError;
  readonly warnings: readonly string[];
}

/**
 * Writes STICKY_PATCH, in the form YYYY-mm-dd; an empty value takes it out. Throws CONFIG_INVALID for a value that no
 * update could follow (KEY is one), UNSAFE_MODE.
 */
export async function setStickyPatch(root: string, value: string): Promise<StickyChange> {
  const { warnings } = await readSettings(root);
  const stickyPatch = value === '' ? null : dateOf(value);
  await setSetting(root, 'STICKY_PATCH', stickyPatch ?? '');
  const { feed, problem } = await cachedFeedOf(await readSettings(root));
  return { stickyPatch, patchset: feed?.patchset ?? null, ...(problem && { problem }), warnings };
}

function dateOf(value: string): string {
  if (!/^[\w-]+$/.test(value))
    throw new KcareError('CONFIG_INVALID', `STICKY_PATCH cannot be ${JSON.stringify(value.slice(0, 80))}.`);
  const { config } = parseConfig(`STICKY_PATCH=${value}\n`);
  // Refuses KEY, so that it does not keep every later update from being made.
  patchsetSelection(config, new Date());
  return config.stickyPatch?.kind === 'date' ? config.stickyPatch.date : value;
}
