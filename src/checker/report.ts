// What a scan tells.
import type { KcareError } from '../base/errors.js';
import type { Distribution } from './distribution.js';

/**
 * `replaced`: another build of the file is installed. `deleted`: the file was removed. `fix-known`: the feed has a patch
 * that is not in the process's memory, or only at a lower level.
 */
export type Reason = 'replaced' | 'deleted' | 'fix-known';

export interface OutdatedObject {
  readonly name: string;
  /** As the process's root directory names it. */
  readonly path: string;
  /** Of the code that is executed; "" when it has none. */
  readonly buildId: string;
  readonly reasons: readonly Reason[];
  /** LibCare can patch it in memory. */
  readonly patchable: boolean;
  /** Applied in this process; 0: no patch. */
  readonly level: number;
  /** That the feed has; absent: none. */
  readonly knownLevel?: number;
  readonly cves: readonly string[];
  readonly package?: string;
  /** Version of what is executed, as far as it is known. */
  readonly runningVersion?: string;
  /** Version of the package that the root directory of the process holds now. */
  readonly installedVersion?: string;
  /** Of what lies on disk now, when that is another build. */
  readonly installedBuildId?: string;
  /** What is installed is itself not up to date: the feed knows a fix for it. */
  readonly installedIsOutdated?: boolean;
  /** Version of the package that has all fixes of the feed. */
  readonly fixedVersion?: string;
}

export interface OutdatedProcess {
  readonly pid: number;
  readonly comm: string;
  /** Of the root directory that the process sees. */
  readonly distribution?: Distribution;
  /** Id of its container, or the name of its mount namespace; absent in the one of the scan itself. */
  readonly container?: string;
  readonly objects: readonly OutdatedObject[];
}

/** A process of which not everything could be looked at. */
export interface UnexaminedProcess {
  readonly pid: number;
  readonly comm: string;
  readonly error: KcareError;
}

export interface ScanReport {
  /** `incomplete`: nothing outdated was found, but not everything could be looked at. */
  readonly status: 'clean' | 'outdated' | 'incomplete';
  /** Everything was looked at. */
  readonly complete: boolean;
  /** What kept the scan from looking at everything, beside single processes. */
  readonly problems: readonly KcareError[];
  readonly processes: readonly OutdatedProcess[];
  readonly unexamined: readonly UnexaminedProcess[];
  readonly examined: {
    readonly processes: number;
    /** Different files of which code is executed. */
    readonly files: number;
    /** Mount namespaces beside that of the scan. */
    readonly containers: number;
    /** Different files whose build-id the feed has a fix for. */
    readonly filesWithFix: number;
  };
  readonly feed: {
    readonly patchset: string;
    /** ISO 8601 time. */
    readonly expires: string;
    /** Number of build-ids that it has fixes for. */
    readonly fixes: number;
  } | null;
  /** For the scan itself, without the start of the program and without the feed, milliseconds. */
  readonly scanMs: number;
}
