// Finishes what a patcher began and could not name: an image that was mapped, and whose header was not written (R2, R7).
import { nativeEngine } from '../addon/index.js';
import { advance, distance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { headerLayout } from '../link/index.js';
import { mappedObjects, ProcessMemory, readMaps, type Mapping } from '../proc/index.js';
import type { MemoryReader } from './frames.js';
import { imageAt, mayHoldImage } from './images.js';
import { IntentJournal, type Intent } from './intents.js';
import type { Pauses } from './pauses.js';
import { unmapRange } from './remote.js';
import { findSignalReturn } from './signal-return.js';

const stopTimeoutMs = 1000;
const pageSize = 4096;

/**
 * Removes the mapping of an intent for `pid` that a dead patcher left, if it is certain that it is ours, and then the
 * intent. Throws TARGET_BUSY when another patcher is at work on the process.
 */
export function finishUnfinished(pid: number, journal: IntentJournal, pauses: Pauses): void {
  const intent = journal.read(pid);
  if (!intent) return;
  if (intent.writer !== undefined) {
    throw new KcareError(
      'TARGET_BUSY',
      `process ${pid}: another patcher (process ${intent.writer}) works on it`,
      { pid, patcher: intent.writer },
    );
  }
  if (intent.begun && intent.isCurrent) removeMapping(intent, pauses);
  journal.drop(pid);
}

/** Processes that {@link finishUnfinished} has to do with; intents of processes that ended are removed. */
export async function interruptedProcesses(intentDirectory?: string): Promise<number[]> {
  const journal = await IntentJournal.open(intentDirectory);
  return journal.pids().filter((pid) => {
    const intent = journal.read(pid);
    if (!intent) return false;
    if (!intent.isCurrent) journal.drop(pid);
    return intent.isCurrent;
  });
}

function removeMapping(intent: Intent, pauses: Pauses): void {
  const { pid, start, size } = intent;
  const memory = ProcessMemory.open(pid);
  const read: MemoryReader = (address, length) => memory.read(address, length);
  try {
    if (isHole(intent, readMaps(pid))) stopAllOnce(pid, pauses);
    const maps = readMaps(pid);
    if (!isUnmarked(intent, maps, read)) return;
    const signalReturn = (): RemoteAddress => findSignalReturn(mappedObjects(pid, memory, maps), read);
    unmapRange({ pid, signalReturn }, start, size, pauses);
  } finally {
    memory.close();
  }
}

/** A thread that lost its tracer makes the call when it gets a processor; once it has been stopped, that is over. */
function stopAllOnce(pid: number, pauses: Pauses): void {
  const request = { writes: [], guarded: [], states: [], timeoutMs: stopTimeoutMs, examine: () => true };
  const outcome = nativeEngine.commit(pid, request);
  if ('statistics' in outcome) {
    pauses.add(outcome.statistics.runningPauseNs, outcome.statistics.longestPauseNs);
  }
  if (outcome.outcome === 'busy') {
    throw new KcareError('TARGET_BUSY', `process ${pid}: ${outcome.reason}`, { pid });
  }
}

function isHole({ start, size }: Intent, maps: readonly Mapping[]): boolean {
  const end = advance(start, size);
  return !maps.some((mapping) => mapping.start < end && start < mapping.end);
}

/**
 * R1: true only for memory that nobody but the dead patcher can have mapped: one mapping as the call makes it, which
 * begins and ends as the intent says (or where an image of ours, with which the kernel merged it, does), and that holds
 * nothing, or the part of the header behind the first page, which is written last.
 */
function isUnmarked(intent: Intent, maps: readonly Mapping[], read: MemoryReader): boolean {
  const { start, size, header } = intent;
  const end = advance(start, size);
  const mapping = maps.find((each) => each.start <= start && end <= each.end);
  if (!mapping || !mayHoldImage(mapping)) return false;
  if (!areImages(mapping.start, start, mapping, read) || !areImages(end, mapping.end, mapping, read))
    return false;
  for (let offset = 0; offset < size; offset += pageSize) {
    const page = read(advance(start, offset), pageSize);
    if (page.every((byte) => byte === 0)) continue;
    const own = Buffer.alloc(pageSize);
    own.set(header.subarray(offset, offset + pageSize));
    if (offset === 0 || !own.equals(page)) return false;
  }
  return true;
}

/** The range is made of images of ours and nothing else. */
function areImages(from: RemoteAddress, to: RemoteAddress, mapping: Mapping, read: MemoryReader): boolean {
  let address = from;
  while (distance(address, to) >= headerLayout.fixedSize) {
    const image = imageAt(address, mapping, read);
    if (!image) return false;
    address = advance(address, image.executableSize);
  }
  return address === to;
}
