// Whether LibCare is on: what --enable-libcare and --disable-libcare decide, kept beside the configuration.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { KcareError } from '../base/errors.js';
import { readSafeFile, safeDirectory, writeAtomically } from '../base/safe-files.js';
import type { AgentPaths } from './paths.js';
import { parseShellSettings } from './shell-settings.js';

const head = '# Written by kcarectl --enable-libcare and --disable-libcare; no other key counts here.\n';

/** LibCare is on unless somebody turned it off. Throws CONFIG_INVALID, UNSAFE_MODE (R10). */
export async function isLibcareEnabled({ libcareState }: Pick<AgentPaths, 'libcareState'>): Promise<boolean> {
  if (!existsSync(libcareState)) return true;
  await safeDirectory(dirname(libcareState));
  const text = (await readSafeFile(libcareState)).toString('utf8');
  const value = parseShellSettings(text).findLast(({ key }) => key === 'LIBCARE_ENABLED')?.value;
  if (value === 'True') return true;
  if (value === 'False') return false;
  throw new KcareError('CONFIG_INVALID', `${libcareState} does not say LIBCARE_ENABLED=True or False.`);
}

/** Durable when it returns. */
export async function setLibcareEnabled(
  { libcareState }: Pick<AgentPaths, 'libcareState'>,
  isEnabled: boolean,
): Promise<void> {
  await safeDirectory(dirname(libcareState));
  const line = `LIBCARE_ENABLED=${isEnabled ? 'True' : 'False'}\n`;
  await writeAtomically(libcareState, Buffer.from(head + line));
}

/** Nothing new is patched while LibCare is off; what is patched stays so. Throws LIBCARE_DISABLED. */
export async function requireLibcare(paths: Pick<AgentPaths, 'libcareState'>): Promise<void> {
  if (await isLibcareEnabled(paths)) return;
  throw new KcareError('LIBCARE_DISABLED', 'LibCare is turned off on this host; nothing was patched.');
}
