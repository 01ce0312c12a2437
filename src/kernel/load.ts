// Loads and unloads one live patch, whole or not at all: what does not come through is turned back.
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadKernelModule, unloadKernelModule } from '../addon/index.js';
import { KcareError } from '../base/errors.js';
import type { KernelModule } from '../patchfile/index.js';
import { inspectKernel, livePatches, ownModules, type Kernel } from './inspect.js';
import { followTransition, forceTransition, setEnabled, type Blocker, type Following } from './transition.js';

export interface FollowOptions extends Following {
  /** When tasks hold the change up until the end: finish it all the same. */
  readonly force: boolean;
}

export interface TransitionResult {
  /** Milliseconds. */
  readonly tookMs: number;
  /** The change was forced over these tasks. */
  readonly forcedOver: readonly Blocker[];
}

const reversalMs = 60_000;
const removalMs = 10_000;

/**
 * Loads `module`, whose bytes are `bytes` (R4: verified), and waits until all tasks run its code; then removes the
 * modules that it replaced. Throws KERNEL_LOAD_REFUSED, and KERNEL_BUSY after the change was turned back.
 */
export async function loadLivePatch(
  module: KernelModule,
  bytes: Uint8Array,
  options: FollowOptions,
): Promise<TransitionResult> {
  const begin = performance.now();
  // One that was replaced, or switched off by hand, is still in memory under the same name.
  if (ownModules().includes(module.name)) await removeModule(module.name);
  const failure = loadKernelModule(bytes);
  if (failure !== undefined) throw refused(module, failure, inspectKernel());
  const forcedOver = await completed(module.name, 1, options);
  for (const name of ownModules()) if (name !== module.name) await removeModule(name);
  return { tookMs: performance.now() - begin, forcedOver };
}

/** Puts the kernel's own code back and removes the module. Throws KERNEL_BUSY after the change was turned back. */
export async function unloadLivePatch(
  patch: { readonly name: string },
  options: FollowOptions,
): Promise<TransitionResult> {
  const begin = performance.now();
  const now = livePatches().find(({ name }) => name === patch.name);
  if (now?.isEnabled) setEnabled(patch.name, false);
  const forcedOver = await completed(patch.name, 0, options);
  await removeModule(patch.name);
  return { tookMs: performance.now() - begin, forcedOver };
}

/** Brings a change that was begun by an earlier run to its end. Throws KERNEL_BUSY. */
export async function finishTransition(
  patch: { readonly name: string; readonly isEnabled: boolean },
  options: FollowOptions,
): Promise<void> {
  await completed(patch.name, patch.isEnabled ? 1 : 0, options);
}

async function completed(name: string, target: 0 | 1, options: FollowOptions): Promise<readonly Blocker[]> {
  const followed = await followTransition(name, target, options);
  if (!('blockers' in followed)) return [];
  const { blockers } = followed;
  if (options.force && options.ending?.aborted !== true) {
    forceTransition(name);
    await followTransition(name, target, { waitMs: reversalMs });
    return blockers;
  }
  const backTo = target === 1 ? 0 : 1;
  try {
    setEnabled(name, backTo === 1);
  } catch (thrown) {
    // It was completed just now.
    if (!livePatches().some((one) => one.name === name && one.isInTransition)) return [];
    throw thrown;
  }
  const back = await followTransition(name, backTo, { waitMs: reversalMs });
  if (target === 1 && !('blockers' in back)) await removeModule(name);
  const state = 'blockers' in back ? 'is being turned back' : 'was turned back';
  throw new KcareError(
    'KERNEL_BUSY',
    `${blockers.length} tasks kept the kernel from changing over; the change ${state}. ${describe(blockers)}`,
    { tasks: blockers },
  );
}

function describe(blockers: readonly Blocker[]): string {
  return blockers
    .map(({ tid, comm, stack }) => {
      const where = stack.length > 0 ? `in ${stack.slice(0, 4).join(' < ')}` : 'running';
      return `Task ${tid} (${comm}) is ${where}.`;
    })
    .join(' ');
}

/** Waits for the kernel to let go of a patch that is no longer in use. A forced one stays for ever, which is no error. */
async function removeModule(name: string): Promise<void> {
  const deadline = performance.now() + removalMs;
  while (existsSync(`/sys/module/${name}`) && performance.now() < deadline) {
    if (unloadKernelModule(name) === 'EPERM') throw notRemovable(name);
    await sleep(10);
  }
}

function notRemovable(name: string): KcareError {
  return new KcareError('NOT_PERMITTED', `The module ${name} may not be removed by this user.`);
}

/** What the kernel means when it refuses a module. */
function refused({ name, isSigned }: KernelModule, failure: string, kernel: Kernel): KcareError {
  const signed = isSigned ? 'is signed by a key that the kernel does not trust' : 'is not signed';
  const policy =
    kernel.lockdown !== undefined && kernel.lockdown !== 'none'
      ? `the kernel is locked down (${kernel.lockdown}), as with secure boot`
      : 'it demands signed modules (module.sig_enforce)';
  const reasons: Readonly<Record<string, string>> = {
    EKEYREJECTED: `${policy}, and the module ${signed}`,
    ENOKEY: `${policy}, and the module ${signed}`,
    EPERM: `${policy}, and the module ${signed}; or this user is not root`,
    EBADMSG: 'the signature of the module is damaged',
    ENOEXEC: 'the module is damaged or made for another kernel',
    ENOENT: 'the module needs a symbol that the kernel does not have',
    EINVAL: 'the kernel does not find the functions that the module replaces',
    ENOMEM: 'there is not enough memory',
    EBUSY: 'another change of a live patch is going on',
  };
  return new KcareError(
    'KERNEL_LOAD_REFUSED',
    `The kernel does not load ${name} (${failure}): ${reasons[failure] ?? 'dmesg says why'}.`,
    { error: failure },
  );
}
