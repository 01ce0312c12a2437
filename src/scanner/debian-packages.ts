// Which versions of packages dpkg has installed below a root directory, which may be that of a container.
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Of a whole distribution it is a few MiB; what a container shows is not trusted to be. */
const longestStatus = 64 * 1024 * 1024;
const stateDirectory = 'var/lib/dpkg';

/** Debian's name of x86-64. */
export const debianArchitecture = 'amd64';

export interface InstalledPackages {
  /** Undefined when the package is not installed for x86-64. */
  version(name: string): string | undefined;
  /** The package put this file in its place. `path` is absolute, below the root. */
  owns(name: string, path: string): boolean;
}

/** A root without dpkg has no packages. Never throws. */
export function installedPackages(root: string): InstalledPackages {
  const versions = new Map<string, string>();
  for (const paragraph of readPlainFile(join(root, stateDirectory, 'status')).split('\n\n')) {
    const name = field(paragraph, 'Package');
    const version = field(paragraph, 'Version');
    const architecture = field(paragraph, 'Architecture');
    const isInstalled = field(paragraph, 'Status')?.split(' ')[2] === 'installed';
    if (name === undefined || version === undefined || !isInstalled) continue;
    if (architecture === debianArchitecture || architecture === 'all') versions.set(name, version);
  }
  return {
    version: (name) => versions.get(name),
    owns: (name, path) => versions.has(name) && filesOf(root, name).has(path),
  };
}

function field(paragraph: string, name: string): string | undefined {
  return new RegExp(`^${name}: *(.*?) *$`, 'm').exec(paragraph)?.[1];
}

/** The lists name files where the package had them, which on a merged /usr can be below /lib. */
function filesOf(root: string, name: string): Set<string> {
  const list = [`${name}:${debianArchitecture}`, name]
    .map((file) => readPlainFile(join(root, stateDirectory, 'info', `${file}.list`)))
    .find((text) => text !== '');
  const files = list?.split('\n') ?? [];
  return new Set(files.flatMap((file) => (file.startsWith('/lib') ? [file, `/usr${file}`] : [file])));
}

/** "" when there is no such plain file, or it is too long. A pipe that a container laid there must not stop us. */
function readPlainFile(path: string): string {
  let file: number | undefined;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(file);
    return status.isFile() && status.size <= longestStatus ? readFileSync(file, 'utf8') : '';
  } catch {
    return '';
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
