// Where an image goes: a free range of addresses near the object.
import { remoteAddress, type RemoteAddress, type RemoteRange } from '../base/address.js';
import { KcareError } from '../base/errors.js';

const reach = 0x7fff_0000n;
const pageSize = 4096n;
/** Distance kept from stacks and heaps, which grow: the kernel's own stack guard gap is 1 MiB. */
const growthMargin = 0x1000000n;

export interface OccupiedRange extends RemoteRange {
  /** The range may grow into the free space next to it (heap upwards, stack downwards). */
  readonly grows?: 'up' | 'down' | undefined;
}

/**
 * Candidate addresses for an image of `size` bytes, nearest first, all within ±2 GiB of every byte of `object`. Each
 * is page aligned and lies in a gap between `occupied` ranges (ascending, not overlapping). Throws NO_GAP.
 */
export function chooseGaps(
  occupied: readonly OccupiedRange[],
  object: RemoteRange,
  size: number,
  lowest: RemoteAddress = remoteAddress(0x10000),
  highest: RemoteAddress = remoteAddress(0x7fff_ffff_f000n),
): RemoteAddress[] {
  const wanted = ((BigInt(size) + pageSize - 1n) / pageSize) * pageSize;
  const low = bigMaximum(lowest, object.end - reach);
  const high = bigMinimum(highest, object.start + reach);
  const candidates: bigint[] = [];
  let gapStart: bigint = lowest;
  const consider = (start: bigint, end: bigint): void => {
    const from = bigMaximum(start, low);
    const to = bigMinimum(end, high);
    if (to - from < wanted) return;
    // The end of the gap that is nearer to the object.
    candidates.push(to <= object.start ? to - wanted : from);
  };
  for (const range of occupied) {
    const end = range.grows === 'down' ? range.start - growthMargin : range.start;
    if (end > gapStart) consider(gapStart, end);
    gapStart = bigMaximum(gapStart, range.grows === 'up' ? range.end + growthMargin : range.end);
  }
  consider(gapStart, highest);
  if (candidates.length === 0)
    throw new KcareError('NO_GAP', `no free ${size} bytes within 2 GiB of the object`);
  const far = (address: bigint): bigint =>
    address < object.start ? object.start - address : address - object.end;
  return candidates
    .sort((left, right) => (far(left) < far(right) ? -1 : far(left) > far(right) ? 1 : 0))
    .map((address) => remoteAddress(address));
}

function bigMaximum(left: bigint, right: bigint): bigint {
  return left > right ? left : right;
}

function bigMinimum(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}
