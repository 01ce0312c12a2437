// Makes the unwind tables of images known to the process's own unwinder, and takes them back before they are unmapped.
import { setTimeout as sleep } from 'node:timers/promises';
import { nativeEngine } from '../addon/index.js';
import { advance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import {
  hookStates,
  registrationCode,
  registrationLayout,
  registrationStates,
  type ImageHeader,
  type RegistrationPlace,
} from '../link/index.js';
import { isHooked } from './hook-marks.js';
import { hookState } from './hook-record.js';
import { idlenessJudge } from './idle-threads.js';
import type { Pauses } from './pauses.js';
import { lasting, mayPass, type UnregisteredImage } from './report.js';
import { findSymbol } from './symbols.js';
import type { Target } from './target.js';
import { findUnwinders, unwinderFor, whyUnusable, type Unwinder } from './unwinder.js';
import { isLockOrphaned } from './unwinder-lock.js';

const passTimeoutMs = 500;
/** Patches are not held back for it: a later run registers what could not be registered now. */
const longestRegistrationMs = 1000;
const firstDelayMs = 1;
const longestDelayMs = 250;

type Task = 'register' | 'deregister';

interface RegistrableImage extends ImageHeader {
  readonly registration: RegistrationPlace;
}

function isRegistrable(image: ImageHeader): image is RegistrableImage {
  return image.registration !== undefined;
}

/**
 * Registers the images that need it; what could not be done is in the result, and a later run does it. Throws
 * TARGET_GONE, TARGET_MEMORY.
 */
export async function registerImages(
  target: Target,
  images: readonly ImageHeader[],
  waitMs: number,
  pauses: Pauses,
): Promise<UnregisteredImage[]> {
  const missing = images.filter(isRegistrable).filter((image) => needsRegistration(target, image));
  const failures: UnregisteredImage[] = [];
  for (const image of missing) {
    try {
      await registerImage(target, image, Math.min(waitMs, longestRegistrationMs), pauses);
    } catch (thrown) {
      if (!(thrown instanceof KcareError) || thrown.code !== 'TARGET_BUSY') throw thrown;
      const { objectName } = image.description;
      failures.push({ objectName, address: image.address, reason: thrown.message, mayPass: mayPass(thrown) });
    }
  }
  return failures;
}

/** There is an unwinder, and it does not know the tables of this image. */
export function needsRegistration(target: Target, image: ImageHeader): boolean {
  if (!isRegistrable(image)) return false;
  const unwinders = findUnwinders(target.objects, target.read);
  const { state, unwinder } = readRecord(target, image);
  const isKnown =
    state === registrationStates.registered && unwinders.some(({ register }) => register === unwinder);
  return unwinders.length > 0 && !isKnown;
}

async function registerImage(
  target: Target,
  image: RegistrableImage,
  waitMs: number,
  pauses: Pauses,
): Promise<void> {
  const unwinders = findUnwinders(target.objects, target.read);
  const object = target.objects.find(({ buildId, bias }) => buildId === image.buildId && bias === image.bias);
  if (unwinders.length === 0 || !object) return;
  const unwinder = unwinderFor(object, unwinders, target.objects, target.read);
  if ('problem' in unwinder) throw busy(target, `it has several unwinders, and ${unwinder.problem}`, lasting);
  const problem = whyUnusable(unwinder);
  if (problem !== undefined) throw busy(target, problem, lasting);
  const work = { target, image, unwinder, deadline: performance.now() + waitMs, pauses };
  await run('register', work);
  if (readRecord(target, image).state !== registrationStates.registered) {
    throw busy(target, `its unwinder ${unwinder.object.name} did not take the unwind tables`);
  }
}

/**
 * Must be called before an image is unmapped, when no thread is in it any more; true when one may be in it again. Throws
 * TARGET_BUSY when the unwinder may still use its tables: then it has to stay mapped (R1).
 */
export async function deregisterImage(
  target: Target,
  image: ImageHeader,
  waitMs: number,
  pauses: Pauses,
): Promise<boolean> {
  if (!isRegistrable(image)) return false;
  const { unwinder: register, settled } = readRecord(target, image);
  if (settled === registrationStates.unknown) return false;
  // An unwinder that was unloaded has taken its list with it.
  const unwinder = findUnwinders(target.objects, target.read).find((known) => known.register === register);
  if (!unwinder) return false;
  const deadline = performance.now() + waitMs;
  const isInside = await run('deregister', { target, image, unwinder, deadline, pauses });
  if (readRecord(target, image).state !== registrationStates.unknown) {
    throw busy(target, `the unwinder ${unwinder.object.name} still knows a patch`);
  }
  return isInside;
}

/** Some thread was or may have been sent into the code of this image. */
export function wasAsked(target: Target, image: ImageHeader): boolean {
  const isInHook = isHooked(image) && hookState(target, image) !== hookStates.idle;
  return isInHook || (isRegistrable(image) && readRecord(target, image).unwinder !== 0n);
}

interface Work {
  readonly target: Target;
  readonly image: RegistrableImage;
  readonly unwinder: Unwinder;
  /** Of performance.now(). */
  readonly deadline: number;
  readonly pauses: Pauses;
}

/**
 * Returns when the code in the image has done the task; true when a thread may still be on its last instructions there.
 * Throws TARGET_BUSY, TARGET_GONE, HEADER_MALFORMED.
 */
async function run(task: Task, work: Work): Promise<boolean> {
  const { target, image, deadline } = work;
  requireOwnCode(target, image);
  await waitWhileWorking(work);
  if (isLockOrphaned(target.pid, work.unwinder, target.read)) {
    throw busy(target, 'a thread that fork(2) did not copy holds the lock of its unwinder', lasting);
  }
  // Which unwinder is concerned must be known before it can know the tables (R2).
  writeUnwinder(target, image, work.unwinder.register);
  const { state: before, settled } = readRecord(target, image);
  writeWord(target, image, registrationLayout.earlierOffset, settled);
  const judge = idlenessJudge(target);
  for (let delay = firstDelayMs; ; delay = Math.min(delay * 2, longestDelayMs)) {
    writeWord(target, image, registrationLayout.stateOffset, registrationStates.asked);
    const asked = callOnce(task, work, judge);
    if (asked === 'returned') return false;
    if (asked === 'unfinished') {
      await waitUntilDone(work);
      return true;
    }
    writeWord(target, image, registrationLayout.stateOffset, before);
    if (performance.now() + delay > deadline) {
      throw busy(target, 'no thread came to a place where it may be sent into the unwinder');
    }
    await sleep(delay);
  }
}

/** `busy`: no thread was at a place where it could be borrowed. */
function callOnce(
  task: Task,
  work: Work,
  judge: ReturnType<typeof idlenessJudge>,
): 'returned' | 'unfinished' | 'busy' {
  const { target, image, unwinder, pauses } = work;
  const errnoName = { name: '__errno_location', version: 'GLIBC_2.2.5' };
  const errnoLocation = findSymbol(target.objects, unwinder.object, errnoName, target.read);
  const outcome = nativeEngine.callFunction(
    target.pid,
    {
      function: advance(image.address, image.registration.code + registrationLayout.codeOffset),
      arguments: [
        advance(image.address, image.registration.record),
        unwinder.register,
        unwinder.find,
        unwinder.deregister,
        'address' in errnoLocation ? errnoLocation.address : 0n,
        task === 'register' ? 1n : 0n,
      ],
      stackDepth: registrationLayout.stackDepth,
    },
    { signalReturn: target.signalReturn(), timeoutMs: passTimeoutMs, choose: judge },
  );
  switch (outcome.outcome) {
    case 'returned':
      pauses.add(outcome.wasRunning ? outcome.pauseNs : 0, outcome.pauseNs);
      return 'returned';
    case 'busy':
    case 'unfinished':
      return outcome.outcome;
    case 'gone':
      throw new KcareError('TARGET_GONE', `process ${target.pid} ended`, { pid: target.pid });
  }
}

/** R1: a header may be forged; nothing is run on its word but the very code that images have. */
function requireOwnCode({ read, pid }: Target, { address, registration }: RegistrableImage): void {
  const start = advance(address, registration.code + registrationLayout.codeOffset);
  if (Buffer.compare(read(start, registrationCode.length), registrationCode) === 0) return;
  throw new KcareError('HEADER_MALFORMED', `process ${pid}: the image has other code than images have`, {
    pid,
  });
}

/** A thread of an earlier run is still at it; in a child of fork(2) it may never come to its end. */
async function waitWhileWorking(work: Work): Promise<void> {
  const { working } = registrationStates;
  await waitWhile([working], work, 'a thread is still in the unwinder on behalf of an earlier run');
}

/** The thread was let alone and finishes by itself, when it gets a lock or a processor. */
async function waitUntilDone(work: Work): Promise<void> {
  const { asked, working } = registrationStates;
  await waitWhile(
    [asked, working],
    work,
    'the thread that was sent into the unwinder waits there for another',
  );
}

async function waitWhile(states: readonly number[], work: Work, reason: string): Promise<void> {
  const { target, image, deadline } = work;
  for (let delay = firstDelayMs; states.includes(readRecord(target, image).state); delay *= 2) {
    if (performance.now() > deadline) throw busy(target, reason);
    await sleep(Math.min(delay, longestDelayMs));
  }
}

interface RegistrationRecord {
  readonly state: number;
  /** What holds when no thread is inside: what was asked and not begun has changed nothing. */
  readonly settled: number;
  /** The function by which it was registered. */
  readonly unwinder: bigint;
}

function readRecord({ read }: Target, { address, registration }: RegistrableImage): RegistrationRecord {
  const bytes = Buffer.from(read(advance(address, registration.record), registrationLayout.recordSize));
  const state = bytes.readUInt32LE(registrationLayout.stateOffset);
  const earlier = bytes.readUInt32LE(registrationLayout.earlierOffset);
  return {
    state,
    settled: state === registrationStates.asked ? earlier : state,
    unwinder: bytes.readBigUInt64LE(registrationLayout.unwinderOffset),
  };
}

function writeUnwinder(target: Target, image: RegistrableImage, register: RemoteAddress): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(register);
  target.write(advance(image.address, image.registration.record + registrationLayout.unwinderOffset), bytes);
}

function writeWord(target: Target, image: RegistrableImage, offset: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  target.write(advance(image.address, image.registration.record + offset), bytes);
}

function busy({ pid }: Target, reason: string, details = {}): KcareError {
  return new KcareError('TARGET_BUSY', `process ${pid}: ${reason}`, { pid, ...details });
}
