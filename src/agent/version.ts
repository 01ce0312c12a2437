// The version of this kcare.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../base/package-root.js';
import { record, text } from '../base/shapes.js';

export function version(): string {
  const file = readFileSync(join(packageRoot(), 'package.json'), 'utf8');
  return record({ version: text() })(JSON.parse(file)).version;
}

/** How the agent names itself to patch servers. */
export function userAgent(): string {
  return `kcare/${version()}`;
}
