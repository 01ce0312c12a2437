// The companion module kcare.ko: finds and loads it, writes the record of what is loaded into it and reads it back.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { loadKernelModule } from '../addon/index.js';
import { readSafeFile } from '../base/safe-files.js';
import type { Kernel } from './inspect.js';
import { parseRecord, printRecord, type PatchRecord } from './record.js';

const device = '/dev/kcare';

const places = ['updates/dkms', 'extra', 'updates', 'kernel/kcare'];

/** Undefined: it is loaded; else why it is not, in words for the user. It is useful and not necessary. */
export async function loadCompanion({ release }: Kernel): Promise<string | undefined> {
  if (existsSync(device)) return undefined;
  const files = places.map((place) => `/lib/modules/${release}/${place}/kcare.ko`);
  const file = files.find((one) => existsSync(one));
  const without = '/proc/kcare is not there for scanners';
  if (file === undefined)
    return `The module kcare.ko is not installed for the kernel ${release}, so that ${without}.`;
  const failure = loadKernelModule(await readSafeFile(file));
  if (failure === undefined || failure === 'EEXIST') return undefined;
  return `The module ${file} cannot be loaded (${failure}), so that ${without}.`;
}

/** What the kernel remembers; undefined: nothing, or the companion is not loaded. */
export function companionRecord(): PatchRecord | undefined {
  try {
    return parseRecord(readFileSync(device, 'utf8'));
  } catch {
    return undefined;
  }
}

/** One write is one record. Throws the system's error; does nothing without the companion. */
export function writeRecord(record?: PatchRecord): void {
  if (existsSync(device)) writeFileSync(device, printRecord(record), { flag: 'w' });
}
