// Whether this host is covered: what stands in the way of patching its libraries and its kernel, each with what to do.
import type { Settings } from '../agent/agent.js';
import { feedChecks } from './feed-checks.js';
import { kernelChecks } from './kernel-checks.js';
import { libraryChecks } from './library-checks.js';
import { platformChecks } from './platform-checks.js';

/** `unknown`: it was not, or could not be, looked at. `note`: it decides nothing. */
export type CheckState = 'covered' | 'not-covered' | 'unknown' | 'note';

export interface Check {
  readonly area: 'libraries' | 'kernel';
  /** Short and stable, for programs. */
  readonly name: string;
  readonly state: CheckState;
  /** What was seen. */
  readonly finding: string;
  /** Present where something can be done. */
  readonly advice?: string;
}

export interface Coverage {
  readonly libraries: 'covered' | 'not-covered' | 'unknown';
  readonly kernel: 'covered' | 'not-covered' | 'unknown';
  readonly checks: readonly Check[];
}

/** Looks at the host, and asks the patch server unless `offline`. Changes nothing. Throws INTERNAL only. */
export async function checkCoverage(settings: Settings, offline: boolean): Promise<Coverage> {
  const checks = [
    ...platformChecks(),
    ...(await feedChecks(settings, offline)),
    ...(await libraryChecks(settings)),
    ...(await kernelChecks(settings)),
  ];
  return { libraries: verdict(checks, 'libraries'), kernel: verdict(checks, 'kernel'), checks };
}

/** One obstacle is enough; what was not looked at is never taken for covered (R6). */
export function verdict(checks: readonly Check[], area: Check['area']): Coverage['libraries'] {
  const states = checks.filter((check) => check.area === area).map(({ state }) => state);
  if (states.includes('not-covered')) return 'not-covered';
  return states.includes('unknown') || !states.includes('covered') ? 'unknown' : 'covered';
}
