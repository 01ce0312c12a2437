// The package database of Debian and its kin: /var/lib/dpkg.
import { namesOfPath, type InstalledPackage, type PackageDatabase } from './packages.js';
import type { RootView } from './root-view.js';

const statusPath = '/var/lib/dpkg/status';
const listDirectory = '/var/lib/dpkg/info';
const logPath = '/var/log/dpkg.log';
const longestStatus = 128 * 1024 * 1024;
const longestList = 32 * 1024 * 1024;
const longestLog = 1024 * 1024;
const longestValue = 256;

export interface DpkgPackage {
  readonly name: string;
  readonly architecture: string;
  readonly version: string;
}

export class DpkgDatabase implements PackageDatabase {
  private packages: readonly DpkgPackage[] | undefined;
  private log: string | undefined;

  private constructor(
    private readonly view: RootView,
    private readonly status: Buffer,
  ) {}

  /** Undefined when the root holds no dpkg database. Throws NOT_PERMITTED. */
  static open(view: RootView): DpkgDatabase | undefined {
    const status = view.read(statusPath, longestStatus);
    return status && new DpkgDatabase(view, status);
  }

  ownerOf(path: string): InstalledPackage | undefined {
    const lines = namesOfPath(path).map((name) => Buffer.from(`\n${name}\n`, 'latin1'));
    let owner: string | undefined;
    this.view.visitFiles(listDirectory, '.list', longestList, (name, bytes) => {
      if (!lines.some((line) => bytes.includes(line))) return true;
      owner = name.slice(0, -'.list'.length);
      return false;
    });
    return owner === undefined ? undefined : this.find(owner);
  }

  /** `name` may carry an architecture: "libssl3:amd64". */
  find(name: string): InstalledPackage | undefined {
    this.packages ??= parseDpkgStatus(this.status.toString('utf8'));
    const [bare, architecture] = name.split(':', 2);
    const found = this.packages.find(
      (one) => one.name === bare && (architecture === undefined || one.architecture === architecture),
    );
    return (
      found && { name: found.name, version: found.version, previousVersion: this.previousVersion(found) }
    );
  }

  /** By the last upgrade in the log, if that led to the version that is installed. */
  private previousVersion({ name, architecture, version }: DpkgPackage): string | undefined {
    this.log ??= this.view.readEnd(logPath, longestLog)?.toString('utf8') ?? '';
    const mark = ` upgrade ${name}:${architecture} `;
    const at = this.log.lastIndexOf(mark);
    if (at < 0) return undefined;
    const [before = '', after] = this.log
      .slice(at + mark.length, at + mark.length + 2 * longestValue)
      .split(/\s/, 2);
    return after === version ? before.slice(0, longestValue) : undefined;
  }
}

/** The packages that are installed, by the text of a status file (deb-control(5)). Never throws. */
export function parseDpkgStatus(text: string): DpkgPackage[] {
  const packages: DpkgPackage[] = [];
  for (const stanza of text.split(/\n{2,}/)) {
    const name = fieldOf(stanza, 'Package');
    const version = fieldOf(stanza, 'Version');
    // "install ok installed": what is wanted, whether it is whole, what is there.
    const isInstalled = fieldOf(stanza, 'Status').endsWith(' installed');
    if (name !== '' && version !== '' && isInstalled)
      packages.push({ name, version, architecture: fieldOf(stanza, 'Architecture') });
  }
  return packages;
}

function fieldOf(stanza: string, name: string): string {
  const mark = `${name}: `;
  const start = stanza.startsWith(mark) ? mark.length : stanza.indexOf(`\n${mark}`) + mark.length + 1;
  if (start <= mark.length && !stanza.startsWith(mark)) return '';
  const end = stanza.indexOf('\n', start);
  return stanza
    .slice(start, end < 0 ? undefined : end)
    .trim()
    .slice(0, longestValue);
}
