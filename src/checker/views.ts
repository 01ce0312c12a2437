// The root directories that processes see, each opened once: its distribution, its packages, and its files in use.
import { readlinkSync } from 'node:fs';
import { asKcareError, KcareError } from '../base/errors.js';
import { readDistribution, type Distribution } from './distribution.js';
import type { MappedFile } from './mapped-file.js';
import { openPackages, type PackageDatabase } from './packages.js';
import { RootView } from './root-view.js';

/** The files of one root. What its os-release and package database say is read when it is asked for. */
export class FileSystemRoot {
  #distribution: Distribution | undefined | null = null;
  #packages: PackageDatabase | undefined | null = null;

  constructor(readonly view: RootView) {}

  get distribution(): Distribution | undefined {
    if (this.#distribution === null) this.#distribution = orUndefined(() => readDistribution(this.view));
    return this.#distribution;
  }

  get packages(): PackageDatabase | undefined {
    if (this.#packages === null) this.#packages = orUndefined(() => openPackages(this.view));
    return this.#packages;
  }
}

/** Names only explain a finding: a database that cannot be read does not hide it. */
function orUndefined<T>(read: () => T | undefined): T | undefined {
  try {
    return read();
  } catch (thrown) {
    if (asKcareError(thrown).code === 'INTERNAL') throw thrown;
    return undefined;
  }
}

export interface LocatedFile {
  readonly file: MappedFile;
  readonly root: FileSystemRoot;
}

/** What processes with the same mount namespace and the same root directory see. */
export class ProcessView {
  /** By the key of {@link ExecutedFile}; undefined: it is no file. */
  readonly files = new Map<string, LocatedFile | undefined>();
  private top: FileSystemRoot | undefined;

  constructor(
    /** "mnt:[4026531832]". */
    readonly mountNamespace: string,
    /** As the kernel writes paths of files below the root: "/" or "/srv/jail". */
    private readonly rootPath: string,
    readonly root: FileSystemRoot,
  ) {}

  /**
   * Where to look up a path that the kernel wrote. It writes them from the top of the mount namespace; what lies outside
   * of the root was mapped before the process changed its root.
   */
  locate(path: string): { readonly root: FileSystemRoot; readonly path: string } {
    if (this.rootPath === '/') return { root: this.root, path };
    if (path.startsWith(`${this.rootPath}/`))
      return { root: this.root, path: path.slice(this.rootPath.length) };
    this.top ??= new FileSystemRoot(this.root.view.openTop());
    return { root: this.top, path };
  }

  close(): void {
    this.root.view.close();
    this.top?.view.close();
  }
}

/** All views met by one scan. */
export class Views {
  private readonly views = new Map<string, ProcessView>();
  readonly own = readlinkSync('/proc/self/ns/mnt');

  /** The view of the process whose directory in /proc is `directory`. Throws the system's errors. */
  of(directory: string): ProcessView {
    const namespace = readlinkSync(`${directory}/ns/mnt`);
    const rootPath = readlinkSync(`${directory}/root`, 'latin1');
    // In our own namespace, a path says all. In others, roots of any number of containers are called "/".
    const isPlain = namespace === this.own && rootPath === '/';
    const key = `${namespace} ${rootPath}`;
    const known = isPlain ? this.views.get(key) : undefined;
    if (known) return known;
    const view = RootView.open(`${directory}/root`);
    const fullKey = isPlain ? key : `${key} ${view.identity}`;
    const same = this.views.get(fullKey);
    if (same) {
      view.close();
      return same;
    }
    const created = new ProcessView(namespace, rootPath, new FileSystemRoot(view));
    if (this.views.size >= mostViews) {
      created.close();
      throw new KcareError(
        'TARGET_UNSUPPORTED',
        `There are more than ${mostViews} different root directories.`,
      );
    }
    this.views.set(fullKey, created);
    return created;
  }

  /** Of other mount namespaces than our own. */
  get containers(): number {
    const others = [...this.views.values()].map(({ mountNamespace }) => mountNamespace);
    return new Set(others.filter((namespace) => namespace !== this.own)).size;
  }

  get all(): readonly ProcessView[] {
    return [...this.views.values()];
  }

  close(): void {
    this.views.forEach((view) => view.close());
    this.views.clear();
  }
}

/** Each takes an open descriptor or two. */
const mostViews = 100_000;
