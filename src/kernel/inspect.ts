// The running kernel as it is: release, build, abilities, and the live patches in it. Reads only.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { release, version } from 'node:os';
import { KcareError } from '../base/errors.js';
import { buildIdFromNotes, readNotes } from '../elf/index.js';
import { kernelModulePrefix, levelOfModule } from '../patchfile/index.js';

const notesFile = '/sys/kernel/notes';
export const livepatchDirectory = '/sys/kernel/livepatch';

export interface Kernel {
  /** `uname -r`. */
  readonly release: string;
  /** `uname -v`. */
  readonly version: string;
  /** Undefined when the kernel does not tell. */
  readonly buildId: string | undefined;
  readonly hasModules: boolean;
  readonly hasLivepatch: boolean;
  /** "none", "integrity", "confidentiality"; undefined when the kernel does not know the word. */
  readonly lockdown: string | undefined;
  /** Modules without a valid signature are refused. */
  readonly requiresSignature: boolean;
}

export interface LivePatch {
  /** Of its module. */
  readonly name: string;
  /** Undefined: it is somebody else's. */
  readonly level: number | undefined;
  readonly isEnabled: boolean;
  readonly isInTransition: boolean;
}

export function inspectKernel(): Kernel {
  const lockdown = readWord('/sys/kernel/security/lockdown');
  return {
    release: release(),
    version: version(),
    buildId: kernelBuildId(),
    hasModules: existsSync('/proc/modules'),
    hasLivepatch: existsSync(livepatchDirectory),
    lockdown: lockdown === undefined ? undefined : /\[(\w+)\]/.exec(lockdown)?.[1],
    requiresSignature: readWord('/sys/module/module/parameters/sig_enforce') === 'Y',
  };
}

function kernelBuildId(): string | undefined {
  try {
    return buildIdFromNotes(readNotes(readFileSync(notesFile)));
  } catch {
    return undefined;
  }
}

/** Why this kernel cannot be patched at all; undefined when it can. */
export function whyUnpatchable(kernel: Kernel): KcareError | undefined {
  const what = `The kernel ${kernel.release} cannot be patched: `;
  const unsupported = (why: string): KcareError => new KcareError('KERNEL_UNSUPPORTED', what + why);
  if (!kernel.hasModules) return unsupported('it is built without loadable modules.');
  if (!kernel.hasLivepatch) return unsupported('it is built without CONFIG_LIVEPATCH.');
  if (kernel.buildId === undefined)
    return unsupported(
      `it does not tell its build-id in ${notesFile}, so that no patch can be known to fit.`,
    );
  return undefined;
}

/** All live patches that the kernel knows, ours and others. */
export function livePatches(): LivePatch[] {
  if (!existsSync(livepatchDirectory)) return [];
  return readdirSync(livepatchDirectory).flatMap((name) => {
    const enabled = readWord(`${livepatchDirectory}/${name}/enabled`);
    const transition = readWord(`${livepatchDirectory}/${name}/transition`);
    // It vanished just now.
    if (enabled === undefined || transition === undefined) return [];
    return [
      { name, level: levelOfModule(name), isEnabled: enabled === '1', isInTransition: transition === '1' },
    ];
  });
}

/** Modules of ours that are in memory, whether they patch or not. */
export function ownModules(): string[] {
  return readdirSync('/sys/module').filter(
    (name) =>
      name.startsWith(kernelModulePrefix) &&
      levelOfModule(name) !== undefined &&
      existsSync(`/sys/module/${name}/initstate`),
  );
}

/** Undefined when it cannot be read. */
export function readWord(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}
