// Whether the running kernel can be patched at all, and whether another live patcher is at work.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { gunzipSync } from 'node:zlib';
import type { Settings } from '../agent/agent.js';
import { kernelStanding } from '../agent/kernel-info.js';
import { asKcareError } from '../base/errors.js';
import { inspectKernel, whyUnpatchable } from '../kernel/index.js';
import type { Check } from './coverage.js';
import { textOf } from './platform-checks.js';

const area = 'kernel';
const askPublisher = 'Ask the publisher of the patches for this kernel, or run one that has patches.';
const otherPatchers = /^(?:lkp_|kpatch|ksplice|klp_|livepatch_|lp_)/;

export async function kernelChecks(settings: Settings): Promise<Check[]> {
  return [livepatch(), modules(), lockdown(), others(), await patches(settings)];
}

function livepatch(): Check {
  const name = 'livepatch';
  if (existsSync('/sys/kernel/livepatch'))
    return { area, name, state: 'covered', finding: `Kernel ${release()} supports live patches.` };
  const setting = configSetting('CONFIG_LIVEPATCH');
  const finding = `Kernel ${release()} has no /sys/kernel/livepatch`;
  if (setting === undefined)
    return { area, name, state: 'not-covered', finding: `${finding}; its configuration was not found.` };
  const advice = 'Run a kernel of the distribution; those of Debian have CONFIG_LIVEPATCH=y.';
  return { area, name, state: 'not-covered', finding: `${finding}; CONFIG_LIVEPATCH is ${setting}.`, advice };
}

function modules(): Check {
  const name = 'modules';
  const disabled = textOf('/proc/sys/kernel/modules_disabled');
  if (disabled === '0') return { area, name, state: 'covered', finding: 'Modules can be loaded.' };
  const finding =
    disabled === undefined
      ? 'This kernel has no modules.'
      : 'Loading modules is disabled until the next boot.';
  return { area, name, state: 'not-covered', finding };
}

function lockdown(): Check {
  const name = 'lockdown';
  const text = textOf('/sys/kernel/security/lockdown');
  const mode = text === undefined ? undefined : /\[(\w+)\]/.exec(text)?.[1];
  if (mode === undefined) {
    const finding = 'Kernel lockdown: /sys/kernel/security/lockdown cannot be read.';
    return { area, name, state: 'note', finding };
  }
  if (mode === 'none') return { area, name, state: 'covered', finding: 'Kernel lockdown is off.' };
  const advice = 'Modules need a signature that this kernel trusts: enrol the key of the modules (MOK).';
  return { area, name, state: 'unknown', finding: `Kernel lockdown is "${mode}".`, advice };
}

function others(): Check {
  const name = 'other-patchers';
  const found = new Set(
    [...namesIn('/sys/kernel/livepatch'), ...namesIn('/sys/module')].filter((module) =>
      otherPatchers.test(module),
    ),
  );
  if (found.size === 0)
    return { area, name, state: 'covered', finding: 'No module of another live patcher was found.' };
  const finding = `Modules of another live patcher are loaded: ${[...found].join(', ')}.`;
  const advice = 'Use one live patcher for the kernel: take the other one out first.';
  return { area, name, state: 'not-covered', finding, advice };
}

/** By what is cached of the feed. */
async function patches({ paths, config }: Settings): Promise<Check> {
  const check = { area, name: 'kernel-patches' } as const;
  if (whyUnpatchable(inspectKernel()))
    return { ...check, state: 'note', finding: `No patch can be loaded into kernel ${release()}.` };
  const notKnown = `Whether there are patches for kernel ${release()} is not known`;
  const advice = 'Ask the patch server: kcarectl --check.';
  if (config.patchServer === undefined)
    return { ...check, state: 'unknown', finding: `${notKnown}: no patch server is configured.` };
  try {
    const { status, level, newestLevel, reason } = await kernelStanding(paths.root, {
      from: 'cache',
      isAutomatic: false,
    });
    if (status === 'unsupported')
      return { ...check, state: 'not-covered', finding: reason ?? notKnown, advice: askPublisher };
    if (newestLevel === undefined)
      return {
        ...check,
        state: 'unknown',
        finding: `${notKnown}: no patchset of kernels is cached.`,
        advice,
      };
    const applied = level === undefined ? 'none is applied' : `level ${level} is applied`;
    const finding = `The feed has a patch of level ${newestLevel} for kernel ${release()}; ${applied}.`;
    return { ...check, state: 'covered', finding };
  } catch (thrown) {
    return { ...check, state: 'unknown', finding: `${notKnown}: ${asKcareError(thrown).message}`, advice };
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** "y", "m" or "not set"; undefined when no configuration of the running kernel is found. */
function configSetting(name: string): string | undefined {
  const text = textOf(`/boot/config-${release()}`) ?? packedConfig();
  if (text === undefined) return undefined;
  return new RegExp(`^${name}=(\\S+)$`, 'm').exec(text)?.[1] ?? 'not set';
}

function packedConfig(): string | undefined {
  try {
    return gunzipSync(readFileSync('/proc/config.gz')).toString('utf8');
  } catch {
    return undefined;
  }
}
