// A private apt configuration in the work directory: the machine's own archives, with sources, and nothing of it changed.
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { run } from './run.js';

export interface Archive {
  readonly uri: string;
  readonly release: string;
  readonly component: string;
  /** Key ring of the entry; undefined where the entry relies on apt's trusted keys. */
  readonly signedBy: string | undefined;
}

interface IndexTarget {
  readonly uri: string;
  readonly release: string;
  readonly component: string;
  readonly origin: string;
  /** "file:entry", as apt names the place of the entry. */
  readonly entry: string;
}

const targetFormat = ['REPO_URI', 'RELEASE', 'COMPONENT', 'ORIGIN', 'SOURCESENTRY']
  .map((field) => `$(${field})`)
  .join('\t');

/** One line of `apt-get indextargets`; fields that apt does not know stay as `$(NAME)`. */
export function parseIndexTarget(line: string): IndexTarget | undefined {
  const [uri = '', release = '', component = '', origin = '', entry = ''] = line
    .split('\t')
    .map((field) => (field.startsWith('$(') ? '' : field));
  return uri && release && component ? { uri, release, component, origin, entry } : undefined;
}

/** The key ring named by the entry at `index` (from 1: stanza of a .sources file, line of a .list file). */
export function signedByOf(text: string, index: number, isStanzaFile: boolean): string | undefined {
  if (!isStanzaFile) return /signed-by=([^\s\]]+)/.exec(text.split('\n')[index - 1] ?? '')?.[1];
  const stanza = text.split(/\n(?:[ \t]*\n)+/).filter((part) => /^[A-Za-z-]+:/m.test(part))[index - 1];
  return /^Signed-By:[ \t]*(\/\S+)/im.exec(stanza ?? '')?.[1];
}

async function signedByOfEntry(entry: string): Promise<string | undefined> {
  const match = /^(.*):(\d+)$/.exec(entry);
  const file = match?.[1];
  if (file === undefined || !existsSync(file)) return undefined;
  return signedByOf(await readFile(file, 'utf8'), Number(match?.[2]), file.endsWith('.sources'));
}

/** The distribution's archives that this machine uses for its own packages; `options` name up-to-date lists of them. */
async function machineArchives(options: readonly string[]): Promise<Archive[]> {
  const request = ['indextargets', '--format', targetFormat, 'Created-By: Packages'];
  const output = await run('apt-get', [...options, ...request]);
  const targets = output
    .split('\n')
    .map(parseIndexTarget)
    .filter((target) => target !== undefined)
    .filter(({ origin }) => origin === '' || origin === 'Debian');
  const archives = await Promise.all(
    targets.map(async ({ uri, release, component, entry }) => ({
      uri,
      release,
      component,
      signedBy: await signedByOfEntry(entry),
    })),
  );
  const unique = new Map(archives.map((archive) => [sourceLine('deb', archive), archive]));
  if (unique.size === 0) {
    throw new KcareError(
      'ARCHIVE_UNAVAILABLE',
      'apt knows no Debian archive: /etc/apt/sources.list* name none.',
    );
  }
  return [...unique.values()];
}

export function sourceLine(kind: 'deb' | 'deb-src', { uri, release, component, signedBy }: Archive): string {
  return `${kind} ${signedBy === undefined ? '' : `[signed-by=${signedBy}] `}${uri} ${release} ${component}`;
}

export class PrivateApt {
  private constructor(private readonly directory: string) {}

  static async open(workDirectory: string): Promise<PrivateApt> {
    const directory = path.join(workDirectory, 'apt');
    for (const part of ['etc/sources.list.d', 'lists/partial', 'cache/archives/partial']) {
      await mkdir(path.join(directory, part), { recursive: true });
    }
    return new PrivateApt(directory);
  }

  private get options(): string[] {
    const { directory } = this;
    const sources = [
      `Dir::Etc::sourcelist=${directory}/etc/sources.list`,
      `Dir::Etc::sourceparts=${directory}/etc/sources.list.d`,
    ];
    return [...this.machineOptions, ...sources.flatMap((option) => ['-o', option])];
  }

  /** The machine's sources with the private lists. */
  private get machineOptions(): string[] {
    const { directory } = this;
    return [
      `Dir::State::lists=${directory}/lists`,
      `Dir::Cache=${directory}/cache`,
      // The sandbox user _apt may not enter the work directory.
      'APT::Sandbox::User=root',
    ].flatMap((option) => ['-o', option]);
  }

  /** Fetches the package lists of the machine's archives, binary and source. */
  async update(): Promise<void> {
    // apt names only those archives of which it has lists; the machine's own lists may be missing or older than its
    // sources. A third party's archive that is out of reach does not matter here.
    await run('apt-get', [...this.machineOptions, '-q', 'update']).catch(() => undefined);
    const archives = await machineArchives(this.machineOptions);
    const lines = archives.flatMap((archive) => [sourceLine('deb', archive), sourceLine('deb-src', archive)]);
    await writeFile(path.join(this.directory, 'etc', 'sources.list'), `${lines.join('\n')}\n`);
    await run('apt-get', [...this.options, '-q', 'update']);
  }

  get isUpdated(): boolean {
    return existsSync(path.join(this.directory, 'etc', 'sources.list'));
  }

  /** The versions of a source package and of one of its binary packages that the archives hold. */
  async versions(source: string, binary: string): Promise<{ source: string[]; binary: string[] }> {
    const output = await run('apt-cache', [...this.options, 'madison', source, binary]);
    const rows = output.split('\n').map((line) => line.split('|').map((field) => field.trim()));
    const pick = (name: string, isSource: boolean): string[] => [
      ...new Set(
        rows
          .filter(
            ([rowName, , origin]) => rowName === name && (origin?.endsWith(' Sources') ?? false) === isSource,
          )
          .map(([, version = '']) => version),
      ),
    ];
    return { source: pick(source, true), binary: pick(binary, false) };
  }

  /** The records that the archives hold of the binary package `name`, one for each version, as apt-cache prints them. */
  async records(name: string): Promise<string[]> {
    const output = await run('apt-cache', [...this.options, 'show', name]);
    return output.split(/\n\n+/).filter((record) => record.startsWith('Package:'));
  }

  /** The names of all binary packages that begin like this. */
  async names(prefix: string): Promise<string[]> {
    return (await run('apt-cache', [...this.options, 'pkgnames', prefix])).split('\n').filter(Boolean);
  }

  /** Downloads `name=version` as a .deb into `directory`. */
  async downloadBinary(name: string, version: string, directory: string): Promise<void> {
    await run('apt-get', [...this.options, '-q', 'download', `${name}=${version}`], { directory });
  }

  /** Downloads the files of a source package (.dsc, tarballs) into `directory`; signatures are checked by apt. */
  async downloadSource(name: string, version: string, directory: string): Promise<void> {
    await run(
      'apt-get',
      [...this.options, '-q', 'source', '--download-only', '--only-source', `${name}=${version}`],
      {
        directory,
      },
    );
  }

  /**
   * Downloads upstream's own tarball of a source package into `directory`: it may be there when the distribution's part
   * is not. Its hash is the one of the signed lists. Throws ARCHIVE_UNAVAILABLE when there is no such tarball.
   */
  async downloadUpstream(name: string, version: string, directory: string): Promise<void> {
    const request = ['source', '--print-uris', '--only-source', `${name}=${version}`];
    const listing = await run('apt-get', [...this.options, '-q', ...request]);
    const [, uri, file, hash] =
      /^'(\S+)' (\S+\.orig\.tar\.(?:gz|xz|bz2)) \d+ (SHA256:[0-9a-f]{64})$/m.exec(listing) ?? [];
    if (uri === undefined || file === undefined || hash === undefined) {
      const message = `The archive names no upstream tarball of ${name} ${version}.`;
      throw new KcareError('ARCHIVE_UNAVAILABLE', message);
    }
    await run('/usr/lib/apt/apt-helper', [...this.options, 'download-file', uri, file, hash], { directory });
  }
}
