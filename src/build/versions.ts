// Debian versions: their order (deb-version(7)), and the choice of the nearest pair when the archive moved on.

const weight = (character: string | undefined): number => {
  if (character === '~') return -1;
  if (character === undefined || /\d/.test(character)) return 0;
  return /[a-zA-Z]/.test(character) ? character.charCodeAt(0) : character.charCodeAt(0) + 256;
};

function comparePart(left: string, right: string): number {
  let [l, r] = [0, 0];
  while (l < left.length || r < right.length) {
    while (
      (l < left.length && !/\d/.test(left[l] ?? '')) ||
      (r < right.length && !/\d/.test(right[r] ?? ''))
    ) {
      const difference = weight(left[l]) - weight(right[r]);
      if (difference !== 0) return difference;
      l++;
      r++;
    }
    const leftDigits = /^\d*/.exec(left.slice(l))?.[0] ?? '';
    const rightDigits = /^\d*/.exec(right.slice(r))?.[0] ?? '';
    const difference = Number(leftDigits) - Number(rightDigits);
    if (difference !== 0) return difference;
    l += leftDigits.length;
    r += rightDigits.length;
  }
  return 0;
}

function split(version: string): { epoch: number; upstream: string; revision: string } {
  const [, epoch = '0', rest = version] = /^(\d+):(.*)$/.exec(version) ?? [];
  const dash = rest.lastIndexOf('-');
  return dash < 0
    ? { epoch: Number(epoch), upstream: rest, revision: '' }
    : { epoch: Number(epoch), upstream: rest.slice(0, dash), revision: rest.slice(dash + 1) };
}

/** Negative, zero or positive, as `left` is older than, equal to or newer than `right`. */
export function compareVersions(left: string, right: string): number {
  const [l, r] = [split(left), split(right)];
  return l.epoch - r.epoch || comparePart(l.upstream, r.upstream) || comparePart(l.revision, r.revision);
}

export interface AvailableVersions {
  readonly binary: readonly string[];
  readonly source: readonly string[];
}

export interface VersionPair {
  readonly runs: string;
  readonly fixed: string;
  /** The archive no longer holds the recipe's pair; this one stands in. */
  readonly substituted: boolean;
}

/**
 * The versions to build from. `runs` needs binary and source, `fixed` needs source. When a wanted one is gone:
 * the nearest available version at or below it, else the nearest above; `fixed` becomes the newest source.
 * Undefined when no two different versions are there.
 */
export function chooseVersions(
  wanted: { readonly runs: string; readonly fixed: string },
  available: AvailableVersions,
): VersionPair | undefined {
  const sources = [...new Set(available.source)].sort(compareVersions);
  const complete = sources.filter((version) => available.binary.includes(version));
  const fixed = sources.includes(wanted.fixed) ? wanted.fixed : sources.at(-1);
  if (fixed === undefined) return undefined;
  const candidates = complete.filter((version) => compareVersions(version, fixed) < 0);
  const below = candidates.filter((version) => compareVersions(version, wanted.runs) <= 0).at(-1);
  const above = candidates.find((version) => compareVersions(version, wanted.runs) > 0);
  const runs = below ?? above;
  if (runs === undefined) return undefined;
  return { runs, fixed, substituted: runs !== wanted.runs || fixed !== wanted.fixed };
}
