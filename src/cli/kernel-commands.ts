// Runs what kcarectl does with the kernel, prints it, and chooses the exit codes that monitoring knows.
import {
  kernelInfo,
  kernelStanding,
  kernelUnload,
  kernelUpdate,
  openAgent,
  readSettings,
  setSetting,
  setStickyPatch,
  type KernelOptions,
  type KernelResult,
  type KernelSource,
  type KernelStatus,
} from '../agent/index.js';
import { asKcareError, exitCodes } from '../base/errors.js';
import type { KernelAction, KernelCliOptions } from './kernel-options.js';
import { kernelInfoText, kernelResultText, patchInfoText, stickyText } from './kernel-text.js';
import { printError, printJson, printLine, printWarnings } from './print.js';

interface Options extends KernelCliOptions {
  readonly root: string;
  readonly json?: true;
}

/** Of --status; errors give 4, so that they are none of these. */
const statusCodes: Readonly<Record<KernelStatus, number>> = {
  latest: 0,
  none: 1,
  outdated: 2,
  unsupported: 3,
};
const unknownStatus = 4;

export async function runKernel(action: KernelAction, options: Options): Promise<number> {
  if (options.setPatchType !== undefined) await setPatchType(options.setPatchType, options);
  switch (action.kind) {
    case 'update':
      return await runUpdate('--update', { from: 'server', isAutomatic: false }, options);
    case 'smart-update':
      return await runUpdate('--smart-update', { from: 'policy', isAutomatic: true }, options);
    case 'auto-update':
      return await runAutoUpdate(options);
    case 'unload': {
      const agent = await openAgent(options.root);
      return printResult(await kernelUnload(agent, changeOptions('--unload', options)), options);
    }
    case 'info': {
      const info = await kernelInfo(options.root);
      if (options.json) printJson(info);
      else kernelInfoText(info).forEach(printLine);
      return exitCodes.done;
    }
    case 'patch-info': {
      const info = await kernelInfo(options.root);
      if (options.json) printJson(info);
      else patchInfoText(info).forEach(printLine);
      return exitCodes.done;
    }
    case 'uname': {
      const { effective } = await kernelInfo(options.root);
      if (options.json) printJson({ uname: effective });
      else printLine(effective);
      return exitCodes.done;
    }
    case 'check':
      return await runCheck(options);
    case 'status':
      return await runStatus(options);
    case 'patch-type':
      if (options.json) printJson({ patchType: options.setPatchType });
      return exitCodes.done;
    case 'sticky': {
      const change = await setStickyPatch(options.root, action.value);
      if (options.json) {
        printJson(change);
      } else {
        printWarnings(change.warnings);
        stickyText(change).forEach(printLine);
      }
      return exitCodes.done;
    }
  }
}

async function setPatchType(type: string, { root, json }: Options): Promise<void> {
  await setSetting(root, 'PATCH_TYPE', type === 'default' ? '' : type);
  if (!json) printLine(type === 'default' ? 'PATCH_TYPE is taken out.' : `PATCH_TYPE is ${type} now.`);
}

function sourceOf(source: KernelSource, { prefix, test }: Options): KernelSource {
  const wanted = test ? 'test' : prefix;
  return wanted === undefined ? source : { ...source, prefix: wanted };
}

function changeOptions(command: string, { force, freezer, json }: Options): KernelOptions {
  let shown = '';
  return {
    command,
    force: force === true,
    freezer,
    onProgress: (blockers) => {
      const [first] = blockers;
      if (!first || json) return;
      const line = `Waiting for ${blockers.length} tasks: ${blockers.map(({ tid, comm }) => `${tid} (${comm})`).join(', ')}`;
      if (line !== shown) process.stderr.write(`${line.replace(/\p{Cc}/gu, '?')}\n`);
      shown = line;
    },
  };
}

async function runUpdate(command: string, source: KernelSource, options: Options): Promise<number> {
  const agent = await openAgent(options.root);
  return printResult(
    await kernelUpdate(agent, sourceOf(source, options), changeOptions(command, options)),
    options,
  );
}

async function runAutoUpdate(options: Options): Promise<number> {
  const { paths, config } = await readSettings(options.root);
  if (!config.autoUpdate) {
    if (options.json) printJson({ action: 'nothing', reason: 'AUTO_UPDATE' });
    else printLine(`AUTO_UPDATE is off in ${paths.config}; nothing is done.`);
    return exitCodes.done;
  }
  try {
    return await runUpdate('--auto-update', { from: 'server', isAutomatic: true }, options);
  } catch (thrown) {
    const error = asKcareError(thrown);
    if (error.code === 'KERNEL_UNKNOWN' && config.ignoreUnknownKernel) return exitCodes.done;
    throw error;
  }
}

function printResult(result: KernelResult, { json }: Options): number {
  if (json) {
    printJson(result);
  } else {
    printWarnings(result.warnings);
    kernelResultText(result).forEach(printLine);
  }
  return exitCodes.done;
}

/** 0: there is a newer one; 1: there is none. Other codes are errors: monitoring must not take them for either. */
async function runCheck(options: Options): Promise<number> {
  try {
    const { status, reason, newestLevel, level } = await kernelStanding(
      options.root,
      sourceOf({ from: 'server', isAutomatic: false }, options),
    );
    const isAvailable = newestLevel !== undefined && newestLevel !== level;
    if (options.json) printJson({ available: isAvailable, status, level, newestLevel, reason });
    else
      printLine(isAvailable ? `Level ${newestLevel} is available.` : (reason ?? 'There is no newer patch.'));
    return isAvailable ? 0 : 1;
  } catch (thrown) {
    const error = asKcareError(thrown);
    printError('kcarectl', error, options.json === true);
    return Math.max(exitCodes.refused, error.exitCode);
  }
}

async function runStatus(options: Options): Promise<number> {
  try {
    const standing = await kernelStanding(
      options.root,
      sourceOf({ from: 'server', isAutomatic: false }, options),
    );
    const texts: Readonly<Record<KernelStatus, string>> = {
      latest: `The newest kernel patch is applied (level ${standing.level ?? '-'}).`,
      none: 'No kernel patch is applied.',
      outdated: `Level ${standing.level ?? '-'} is applied; level ${standing.newestLevel ?? '-'} is available.`,
      unsupported: standing.reason ?? 'This kernel cannot be patched.',
    };
    if (options.json) printJson(standing);
    else printLine(texts[standing.status]);
    return statusCodes[standing.status];
  } catch (thrown) {
    printError('kcarectl', asKcareError(thrown), options.json === true);
    return unknownStatus;
  }
}
