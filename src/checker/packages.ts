// Which package of a root directory a file belongs to, by whatever package database is there.
import { DpkgDatabase } from './dpkg.js';
import type { RootView } from './root-view.js';
import { RpmDatabase } from './rpm.js';

export interface InstalledPackage {
  readonly name: string;
  /** Of the package as it is installed now. */
  readonly version: string;
  /** The version that the last upgrade replaced, where a log tells. */
  readonly previousVersion?: string | undefined;
}

export interface PackageDatabase {
  /** The package that owns `path` (Latin-1); undefined when none does or it cannot be told. Never throws because of what the files hold. */
  ownerOf(path: string): InstalledPackage | undefined;
  /** A package by its name. */
  find(name: string): InstalledPackage | undefined;
}

/** Undefined when there is no database that can be read. Throws NOT_PERMITTED. */
export function openPackages(view: RootView): PackageDatabase | undefined {
  return DpkgDatabase.open(view) ?? RpmDatabase.open(view);
}

/** Under merged /usr, packages may still list /lib/x for what is /usr/lib/x. */
export function namesOfPath(path: string): string[] {
  const merged = /^\/usr(\/(?:lib|lib32|lib64|libx32|bin|sbin)\/.*)$/s.exec(path)?.[1];
  const split = /^\/(?:lib|lib32|lib64|libx32|bin|sbin)\//.test(path) ? `/usr${path}` : undefined;
  return [path, merged, split].filter((name) => name !== undefined);
}
