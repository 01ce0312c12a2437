// What a process knows of the hooks of an image: which were run, and whether a thread is at work on one.
import { advance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import {
  guardedImage,
  hookCode,
  hookLayout,
  hookStates,
  mostRuns,
  presence,
  type ImageHook,
} from '../link/index.js';
import { commitPlan } from './commit.js';
import { isHooked, markOf, recordOf, type HookedImage } from './hook-marks.js';
import type { Pauses } from './pauses.js';
import type { Target } from './target.js';

/** A function to be run, and the word that says afterwards that it was. */
export interface Run {
  readonly function: RemoteAddress;
  readonly mark: RemoteAddress;
  readonly value: 0 | 1;
}

/** Where the code lies that runs hooks. */
export function codeOf({ address, hookPlace }: HookedImage): RemoteAddress {
  return advance(address, hookPlace.code);
}

export function writeMark(target: Target, image: HookedImage, hook: ImageHook, value: 0 | 1): void {
  writeWord(target, markOf(image, hook), value);
}

/** A run that only changes its mark. */
export function markingRun(image: HookedImage, hook: ImageHook, value: 0 | 1): Run {
  return { function: advance(codeOf(image), hookCode.length - 1), mark: markOf(image, hook), value };
}

export function hookState({ read }: Target, image: HookedImage): number {
  return Buffer.from(read(recordOf(image), 4)).readUInt32LE();
}

/** What the last function returned. */
export function hookResult({ read }: Target, image: HookedImage): number {
  return Buffer.from(read(advance(recordOf(image), hookLayout.resultOffset), 4)).readInt32LE();
}

export function writeState(target: Target, image: HookedImage, state: keyof typeof hookStates): void {
  writeWord(target, recordOf(image), hookStates[state]);
}

/** Says what is to be run next; nothing is until the state is `asked`. Throws TARGET_UNSUPPORTED, HEADER_MALFORMED. */
export function writeRuns(target: Target, image: HookedImage, runs: readonly Run[]): void {
  requireOwnCode(target, image);
  if (runs.length > mostRuns) {
    const text = `process ${target.pid}: ${runs.length} update functions at once are too many`;
    throw new KcareError('TARGET_UNSUPPORTED', text, { pid: target.pid });
  }
  const bytes = Buffer.alloc(runs.length * hookLayout.runSize);
  runs.forEach((run, index) => {
    const at = index * hookLayout.runSize;
    bytes.writeBigUInt64LE(run.function, at);
    bytes.writeBigUInt64LE(run.mark, at + 8);
    bytes.writeUInt32LE(run.value, at + 16);
  });
  writeState(target, image, 'idle');
  target.write(advance(recordOf(image), hookLayout.runsOffset), bytes);
  writeWord(target, advance(recordOf(image), hookLayout.countOffset), runs.length);
}

/**
 * Waits until no thread is at work any more that an earlier run sent there. What was asked for and never begun is not
 * begun any more then; what a thread had begun that fork(2) did not copy counts as done. Throws TARGET_BUSY.
 */
export async function settleHooks(target: Target, waitMs: number, pauses: Pauses): Promise<void> {
  for (const image of target.images) {
    if (!isHooked(image)) continue;
    const { asked, working } = hookStates;
    const state = hookState(target, image);
    if (state !== asked && state !== working) continue;
    const plan = { writes: [presence(image)], guarded: [guardedImage(image)], states: [], discarded: [] };
    await commitPlan(target, plan, waitMs, pauses);
    if (hookState(target, image) === working) markAll(target, image);
    writeState(target, image, 'idle');
  }
}

/** R1: the record is in memory that the process can write; only words of images are written on its word. */
function markAll(target: Target, image: HookedImage): void {
  const { read } = target;
  const record = Buffer.from(read(recordOf(image), hookLayout.recordSize));
  const count = Math.min(record.readUInt32LE(hookLayout.countOffset), mostRuns);
  const words = target.images
    .filter(isHooked)
    .flatMap((each) =>
      each.hooks.map((hook): [RemoteAddress, HookedImage, ImageHook] => [markOf(each, hook), each, hook]),
    );
  for (let index = 0; index < count; index++) {
    const at = hookLayout.runsOffset + index * hookLayout.runSize;
    const mark = record.readBigUInt64LE(at + 8);
    const found = words.find(([address]) => address === mark);
    if (found) writeMark(target, found[1], found[2], record.readUInt32LE(at + 16) === 1 ? 1 : 0);
  }
}

/** R1: a header may be forged; nothing is run on its word but the very code that images have. */
export function requireOwnCode({ read, pid }: Target, image: HookedImage): void {
  if (Buffer.compare(read(codeOf(image), hookCode.length), hookCode) === 0) return;
  throw new KcareError('HEADER_MALFORMED', `process ${pid}: the image has other code than images have`, {
    pid,
  });
}

function writeWord(target: Target, address: RemoteAddress, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  target.write(address, bytes);
}
