// What kcarectl says of the kernel, as text.
import type { KernelInfo, KernelResult, StickyChange } from '../agent/index.js';

export function kernelResultText(result: KernelResult): string[] {
  const { action, level, effective, tookMs, forcedOver } = result;
  const forced = forcedOver.map(
    ({ tid, comm }) =>
      `Task ${tid} (${comm}) was passed over by force; the patch cannot be unloaded before a restart.`,
  );
  switch (action) {
    case 'loaded':
      return [
        `Patch level ${level ?? '-'} applied in ${((tookMs ?? 0) / 1000).toFixed(2)} s. Effective kernel version ${effective}`,
        ...forced,
        'Kernel is safe',
      ];
    case 'kept':
      return [
        `Patch level ${level ?? '-'} is applied already. Effective kernel version ${effective}`,
        'Kernel is safe',
      ];
    case 'unloaded':
      return [...forced, 'KernelCare protection disabled. Your kernel might not be safe'];
    case 'nothing':
      return [level === undefined ? 'No kernel patch is applied; nothing was done.' : 'Nothing was done.'];
  }
}

export function kernelInfoText(info: KernelInfo): string[] {
  const patch =
    info.level === undefined
      ? ['patch level: none']
      : [
          `patch level: ${info.level}${info.isInTransition ? ' (tasks are still changing over)' : ''}`,
          `patchset: ${info.patchset ?? 'N/A'}`,
          `module: ${info.module ?? 'N/A'}`,
          `applied: ${info.loaded ?? 'N/A'}`,
          `fixes: ${info.cves.map(({ id }) => id).join(' ') || 'N/A'}`,
        ];
  return [
    `kernel: ${info.release}`,
    `build-id: ${info.buildId ?? 'N/A'}`,
    `effective: ${info.effective}`,
    ...patch,
    ...info.others.map((name) => `live patch of somebody else: ${name}`),
    ...(info.unsupported === undefined ? [] : [info.unsupported]),
  ];
}

/** The keys and their order are those that programs around KernelCare read. */
export function patchInfoText(info: KernelInfo): string[] {
  if (info.level === undefined) return ['No kernel patch is applied.'];
  const known = (text: string): string => (text === '' ? 'N/A' : text);
  const head = [
    'OS: linux',
    `kernel: ${info.version}`,
    `time: ${(info.loaded ?? 'N/A').replace('T', ' ').replace(/\.\d+Z$/, '')}`,
    `uname: ${info.effective}`,
  ];
  const patches = info.cves.map(({ id, score, url, description }) => [
    `kpatch-name: ${info.module ?? 'N/A'}/${id}`,
    `kpatch-description: ${known(description)}`,
    `kpatch-kernel: ${info.effective}`,
    `kpatch-cve: ${id}`,
    `kpatch-cvss: ${known(score)}`,
    `kpatch-cve-url: ${known(url)}`,
    'kpatch-patch-url: N/A',
  ]);
  return [head, ...patches].flatMap((block, index) => (index === 0 ? block : ['', ...block]));
}

/** `patchset` is what libraries follow; kernels have patchsets of their own. */
export function stickyText({ stickyPatch, patchset, problem }: StickyChange): string[] {
  const change = stickyPatch === null ? 'STICKY_PATCH is taken out.' : `STICKY_PATCH is ${stickyPatch} now.`;
  if (patchset !== null) return [change, `Libraries follow patchset ${patchset}.`];
  if (problem) return [change, `Which patchset libraries follow is not known: ${problem.message}`];
  return [change, 'The feed has no patchset for libraries that is so old: none is applied.'];
}
