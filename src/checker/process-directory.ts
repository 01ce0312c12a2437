// A process's directory in /proc, held open, which tells at the end whether all that was read is of the same process.
import { closeSync, constants, openSync, readdirSync, readFileSync } from 'node:fs';
import { systemCode } from '../proc/index.js';
import { scanMapsFile, type ScannedMaps } from './maps-scan.js';

const kernelThreadFlag = 0x0020_0000;

export class ProcessDirectory {
  private constructor(
    readonly pid: number,
    private readonly descriptor: number,
  ) {}

  /** Undefined when there is no such process. The inverse is {@link close}. Throws the system's errors. */
  static open(pid: number): ProcessDirectory | undefined {
    try {
      return new ProcessDirectory(pid, openSync(`/proc/${pid}`, constants.O_RDONLY | constants.O_DIRECTORY));
    } catch (thrown) {
      if (isGone(thrown)) return undefined;
      throw thrown;
    }
  }

  /** Shorter to resolve than the open directory: as long as {@link comm} is there, the pid was not given away. */
  get path(): string {
    return `/proc/${this.pid}`;
  }

  /**
   * Maps, and the directory of the thread that has them: the main thread may have ended before the others. Undefined for
   * kernel threads, zombies, and when the process has ended. Throws the system's errors.
   */
  maps(): { readonly maps: ScannedMaps; readonly directory: string } | undefined {
    const maps = this.mapsAt(this.path);
    if (maps?.hasMemory === true) return { maps, directory: this.path };
    for (const thread of this.otherThreads()) {
      const directory = `${this.path}/task/${thread}`;
      const maps = this.mapsAt(directory);
      if (maps?.hasMemory === true) return { maps, directory };
    }
    return undefined;
  }

  /** As ps shows it; undefined when the process has ended. */
  get comm(): string | undefined {
    return this.text('comm')?.replace(/\n$/, '');
  }

  /** A small file; undefined when the process has ended, or the file may not be read. */
  text(name: string): string | undefined {
    try {
      return readFileSync(`/proc/self/fd/${this.descriptor}/${name}`, 'utf8');
    } catch {
      return undefined;
    }
  }

  close(): void {
    closeSync(this.descriptor);
  }

  private mapsAt(directory: string): ScannedMaps | undefined {
    try {
      return scanMapsFile(`${directory}/maps`);
    } catch (thrown) {
      if (isGone(thrown) || this.isKernelThread()) return undefined;
      throw thrown;
    }
  }

  private otherThreads(): string[] {
    try {
      return readdirSync(`${this.path}/task`).filter((name) => name !== `${this.pid}`);
    } catch (thrown) {
      if (isGone(thrown)) return [];
      throw thrown;
    }
  }

  private isKernelThread(): boolean {
    const stat = this.text('stat') ?? '';
    const flags = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[6];
    return (Number(flags) & kernelThreadFlag) !== 0;
  }
}

export function isGone(thrown: unknown): boolean {
  return ['ENOENT', 'ESRCH'].includes(systemCode(thrown) ?? '');
}
