// Whether the running kernel can be patched at all, and whether another live patcher is at work.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { gunzipSync } from 'node:zlib';
import type { Check } from './coverage.js';
import { textOf } from './platform-checks.js';

const area = 'kernel';
const otherPatchers = /^(?:lkp_|kpatch|ksplice|klp_|livepatch_|lp_)/;

export function kernelChecks(): Check[] {
  return [livepatch(), modules(), lockdown(), others(), patches()];
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

function patches(): Check {
  return {
    area,
    name: 'kernel-patches',
    state: 'unknown',
    finding: `Whether there are patches for kernel ${release()} was not looked at.`,
    advice: 'Ask the publisher of the patches.',
  };
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
