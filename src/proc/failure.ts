// Turns system errors of /proc into the project's errors: a vanished process is an outcome, not a defect (R11).
import { KcareError, asKcareError } from '../base/errors.js';

/** The code of a system error, e.g. "ENOENT". */
export function systemCode(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}

export function processGone(pid: number): KcareError {
  return new KcareError('TARGET_GONE', `Process ${pid} does not exist any more.`, { pid });
}

/** The error to throw for a failed access to /proc/`pid`. */
export function processFailure(pid: number, thrown: unknown): KcareError {
  const code = systemCode(thrown);
  if (code === 'ENOENT' || code === 'ESRCH') return processGone(pid);
  if (code === 'EACCES' || code === 'EPERM') {
    return new KcareError(
      'NOT_PERMITTED',
      `Process ${pid} may not be examined by this user.`,
      { pid },
      { cause: thrown },
    );
  }
  return asKcareError(thrown);
}
