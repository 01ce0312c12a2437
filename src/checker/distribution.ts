// Which distribution a root directory holds, by its os-release file (os-release(5)).
import type { RootView } from './root-view.js';

export interface Distribution {
  /** "debian", "ubuntu", "almalinux"; "linux" when the file does not say. */
  readonly id: string;
  /** "12"; "" for rolling releases. */
  readonly versionId: string;
  /** For people. */
  readonly name: string;
  /** Distributions that this one is derived from, nearest first. */
  readonly like: readonly string[];
}

const places = ['/etc/os-release', '/usr/lib/os-release'];
const longestFile = 64 * 1024;
const longestValue = 256;

/** Undefined when neither file is there. Throws NOT_PERMITTED. */
export function readDistribution(view: RootView): Distribution | undefined {
  for (const place of places) {
    const bytes = view.read(place, longestFile);
    if (bytes) return parseOsRelease(bytes.toString('utf8'));
  }
  return undefined;
}

/** Never throws: lines that are no assignments are left out, as the format asks for. */
export function parseOsRelease(text: string): Distribution {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, key, raw] = /^\s*([A-Z][A-Z0-9_]*)=(.*?)\s*$/.exec(line) ?? [];
    if (key !== undefined && raw !== undefined) values.set(key, unquote(raw).slice(0, longestValue));
  }
  const id = (values.get('ID') ?? '').toLowerCase();
  const versionId = values.get('VERSION_ID') ?? '';
  const name = values.get('PRETTY_NAME') ?? `${values.get('NAME') ?? (id || 'Linux')} ${versionId}`.trim();
  const like = (values.get('ID_LIKE') ?? '').toLowerCase().split(/\s+/).filter(Boolean);
  return { id: id || 'linux', versionId, name, like };
}

function unquote(raw: string): string {
  const [, , inside] = /^(["'])(.*)\1$/.exec(raw) ?? [];
  return (inside ?? raw).replace(/\\(["'$`\\])/g, '$1');
}
