// Finds the processes that map given objects, and says of each whether it may be patched.
import { asKcareError, KcareError } from '../base/errors.js';
import {
  listProcesses,
  mappedObjects,
  readCommand,
  readExecutable,
  type MappedObject,
} from '../proc/index.js';
import { Blacklist, type BlacklistRule } from './blacklist.js';

/** A process that executes code of at least one ELF object. */
export interface HostProcess {
  readonly pid: number;
  /** As ps shows it; may be "". */
  readonly comm: string;
  /** Path of the program in its own mount namespace; "" when unknown. */
  readonly executable: string;
  readonly objects: readonly MappedObject[];
  /** Set when the blacklist forbids touching the process. */
  readonly blacklisted?: BlacklistRule;
}

/** A process that could not be examined. */
export interface UnreadableProcess {
  readonly pid: number;
  readonly comm: string;
  readonly error: KcareError;
}

export interface Discovery {
  readonly processes: readonly HostProcess[];
  readonly unreadable: readonly UnreadableProcess[];
}

export interface DiscoverOptions {
  /** Only these; absent = all. A pid that does not exist is reported as unreadable (TARGET_GONE). */
  readonly pids?: readonly number[] | undefined;
  readonly blacklist?: Blacklist | undefined;
  /** Only processes with an object of which the build-id passes. */
  readonly wanted?: ((buildId: string) => boolean) | undefined;
}

/** Reads every process's maps once and one page of each object. kcare itself and kernel threads are left out. */
export function discover(options: DiscoverOptions = {}): Discovery {
  const processes: HostProcess[] = [];
  const unreadable: UnreadableProcess[] = [];
  for (const pid of chosenPids(options.pids)) {
    try {
      const found = examine(pid, options);
      if (found) processes.push(found);
    } catch (thrown) {
      const error = asKcareError(thrown);
      // A process that ended since the listing is no news (R11), one that the user named is.
      if (error.code === 'TARGET_GONE' && !options.pids) continue;
      unreadable.push({ pid, comm: error.code === 'TARGET_GONE' ? '' : commandOf(pid), error });
    }
  }
  return { processes, unreadable };
}

/** The name of a process, "" when it is gone. */
export function commandOf(pid: number): string {
  return orElse('', () => readCommand(pid));
}

/** Pids to look at: those asked for, or all, but never kcare itself. */
export function chosenPids(pids: readonly number[] | undefined): number[] {
  return [...new Set(pids ?? listProcesses())].filter((pid) => pid !== process.pid);
}

function examine(pid: number, options: DiscoverOptions): HostProcess | undefined {
  const { wanted } = options;
  const objects = mappedObjects(pid).filter(
    (object) => object.executable && object.buildId !== '' && (!wanted || wanted(object.buildId)),
  );
  if (objects.length === 0) return undefined;
  const executable = executableOf(pid);
  const blacklisted = options.blacklist?.match(executable);
  return { pid, comm: commandOf(pid), executable, objects, ...(blacklisted && { blacklisted }) };
}

/** Path of the program in its own mount namespace, also when its file was deleted; "" when the process is gone. */
export function executableOf(pid: number): string {
  return orElse('', () => readExecutable(pid));
}

function orElse<T>(fallback: T, read: () => T): T {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof KcareError && thrown.code === 'TARGET_GONE') return fallback;
    throw thrown;
  }
}
