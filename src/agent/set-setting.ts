// Changes one key of kcare.conf and leaves every other line as it is.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { KcareError } from '../base/errors.js';
import { readSafeFile, safeDirectory, writeAtomically } from '../base/safe-files.js';
import { parseConfig } from './config.js';
import { agentPaths } from './paths.js';

/** An empty value takes the key out. Throws CONFIG_INVALID for a value that the key cannot have, UNSAFE_MODE. */
export async function setSetting(root: string, key: string, value: string): Promise<void> {
  const { config: path } = agentPaths(root);
  await safeDirectory(dirname(path));
  const old = existsSync(path) ? (await readSafeFile(path)).toString('utf8') : '';
  const lines = old.split('\n').filter((line) => !new RegExp(`^\\s*(?:export\\s+)?${key}\\s*=`).test(line));
  while (lines.at(-1) === '') lines.pop();
  if (!/^[\w.:-]*$/.test(value))
    throw new KcareError('CONFIG_INVALID', `${key} cannot be ${JSON.stringify(value.slice(0, 80))}.`);
  if (value !== '') parseConfig(`${key}=${value}\n`);
  const text = [...lines, ...(value === '' ? [] : [`${key}=${value}`]), ''].join('\n');
  await writeAtomically(path, Buffer.from(text));
}
