// Which distribution this is, as os-release(5) says.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The keys of os-release below `root`; empty when there is none. */
export function osRelease(root: string): Readonly<Record<string, string>> {
  for (const file of ['etc/os-release', 'usr/lib/os-release']) {
    try {
      return parseOsRelease(readFileSync(join(root, file), 'utf8'));
    } catch {
      // The other place may have it.
    }
  }
  return {};
}

function parseOsRelease(text: string): Record<string, string> {
  const lines = text.matchAll(/^([A-Z][A-Z0-9_]*)=(?:"([^"\n]*)"|'([^'\n]*)'|(\S*))\s*$/gm);
  return Object.fromEntries(
    [...lines].map(([, key = '', double, single, plain]) => [key, double ?? single ?? plain ?? '']),
  );
}
