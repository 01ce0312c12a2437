// Where the agent keeps its files, below a root directory that is "/" on a real host.
import { join, resolve } from 'node:path';
import { KcareError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';

export interface AgentPaths {
  readonly root: string;
  readonly config: string;
  /** Whether LibCare is on (libcare-state.ts). */
  readonly libcareState: string;
  /** Programs that run before and after an update (update-hooks.ts). */
  readonly hooks: string;
  /** Trusted OpenPGP keys. */
  readonly keys: string;
  /** The verified feed. */
  readonly cache: string;
  /** In order of priority, only the first that exists counts: the administrator's, the installed one, the one of this package. */
  readonly blacklists: readonly string[];
  readonly log: string;
  readonly lock: string;
  /** What the last run said of processes that it left behind. */
  readonly outcomes: string;
  /** The patchset that the last update brought this host to (standing-patchset.ts). */
  readonly standing: string;
  /** Mappings that were begun (the engine's journal). */
  readonly intents: string;
  /** Where libcare-server listens. */
  readonly socket: string;
  /** Switches of single kernel fixes. */
  readonly sysctl: string;
  /** What is loaded into the kernel (kernel-state.ts). */
  readonly kernelRecord: string;
  /** A load into the kernel that was begun; survives a crash. */
  readonly kernelMark: string;
}

/** Throws USAGE unless `root` is an absolute path. */
export function agentPaths(root: string): AgentPaths {
  if (!root.startsWith('/'))
    throw new KcareError('USAGE', `The root directory ${JSON.stringify(root)} is not an absolute path.`);
  const full = resolve(root);
  return {
    root: full,
    config: join(full, 'etc/sysconfig/kcare/kcare.conf'),
    libcareState: join(full, 'etc/sysconfig/kcare/libcare.state'),
    hooks: join(full, 'etc/sysconfig/kcare/hooks'),
    keys: join(full, 'etc/sysconfig/kcare/keys'),
    cache: join(full, 'var/cache/kcare'),
    blacklists: [
      join(full, 'var/cache/kcare/userspace/blacklist'),
      join(full, 'var/lib/libcare/blacklist'),
      join(packageRoot(), 'blacklists/default'),
    ],
    log: join(full, 'var/log/kcarectl.log'),
    lock: join(full, 'run/kcare/kcarectl.lock'),
    outcomes: join(full, 'run/kcare/outcomes.json'),
    standing: join(full, 'var/lib/kcare/standing.json'),
    intents: join(full, 'run/kcare/intents'),
    socket: join(full, 'run/libcare/libcare.sock'),
    sysctl: join(full, 'etc/sysconfig/kcare/sysctl.conf'),
    kernelRecord: join(full, 'run/kcare/kernel'),
    kernelMark: join(full, 'var/lib/kcare/kernel-load.json'),
  };
}
