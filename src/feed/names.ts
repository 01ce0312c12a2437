// Names and limits of a feed: patchsets, prefixes, target paths and the largest sizes that a client accepts.
import { KcareError } from '../base/errors.js';

/** Largest sizes in bytes that a client reads; a server cannot make it read more (endless data). */
export const limits = {
  root: 512_000,
  timestamp: 16_384,
  snapshot: 2_000_000,
  targets: 32_000_000,
  signature: 65_536,
  openpgpKey: 1_000_000,
  feedList: 4_000_000,
  patchsetIndex: 16_000_000,
  patch: 256_000_000,
} as const;

const patchsetPattern = /^[UK]\d{8}_\d{2}$/;
const prefixPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

export const defaultPrefix = 'main';
export const feedListPath = 'feed.json';
/** Public OpenPGP key of a feed, for people to fetch, compare by fingerprint and import. */
export const publicKeyName = 'kcare-feed.asc';

export function isPatchsetName(name: string): boolean {
  return patchsetPattern.test(name);
}

export function patchsetPath(name: string): string {
  return `patchsets/${name}.json`;
}

export function patchPath(buildId: string, level: number, extension = '.kpatch'): string {
  return `patches/${buildId}-${level}${extension}`;
}

/** U: patches for user space. K: patches for kernels. Both kinds lie in one feed; each has its own newest patchset. */
export type PatchsetKind = 'U' | 'K';

export function isOfKind(kind: PatchsetKind, { name }: { readonly name: string }): boolean {
  return name.startsWith(kind);
}

/** The patchset name that follows `existing` on the (UTC) day of `now`: `U<yyyymmdd>_<nn>`. */
export function nextPatchsetName(existing: readonly string[], now: Date, kind: PatchsetKind = 'U'): string {
  const day = `${kind}${now.toISOString().slice(0, 10).replaceAll('-', '')}_`;
  const used = existing.filter((name) => name.startsWith(day)).map((name) => Number(name.slice(day.length)));
  const next = Math.max(0, ...used) + 1;
  if (next > 99) throw new KcareError('FEED_CONFLICT', `All 99 patchset names of ${day}nn are taken.`);
  return `${day}${String(next).padStart(2, '0')}`;
}

/** `PREFIX` as the name of one directory; empty means "main". Throws USAGE for anything that is not one plain name. */
export function feedPrefix(prefix: string | undefined): string {
  const name = prefix === undefined || prefix === '' ? defaultPrefix : prefix;
  if (!prefixPattern.test(name)) {
    throw new KcareError(
      'USAGE',
      `The prefix ${JSON.stringify(name)} is not a plain name of letters, digits, dots, dashes and underscores.`,
    );
  }
  return name;
}

/** Where a target lies below `targets/`: the hash comes before the base name (TUF consistent snapshots). */
export function hashedPath(targetPath: string, sha256: string): string {
  const slash = targetPath.lastIndexOf('/') + 1;
  return `${targetPath.slice(0, slash)}${sha256}.${targetPath.slice(slash)}`;
}
