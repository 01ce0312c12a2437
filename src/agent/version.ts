// The version of this kcare.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { packageRoot } from '../build/work-directory.js';

export function version(): string {
  const text = readFileSync(join(packageRoot(), 'package.json'), 'utf8');
  return z.object({ version: z.string() }).parse(JSON.parse(text)).version;
}

/** How the agent names itself to patch servers. */
export function userAgent(): string {
  return `kcare/${version()}`;
}
