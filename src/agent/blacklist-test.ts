// --blacklist-test: which line of which blacklist decides over a process or a program.
import { realpathSync } from 'node:fs';
import { KcareError } from '../base/errors.js';
import { executableOf, type BlacklistRule } from '../host/index.js';
import { openBlacklist } from './agent.js';
import { agentPaths } from './paths.js';

export interface BlacklistAnswer {
  /** The program that was compared with the rules, links followed. */
  readonly executable: string;
  readonly pid?: number;
  readonly isBlacklisted: boolean;
  /** The line that decides; absent when none does. */
  readonly rule?: BlacklistRule;
  /** The file that counts on this host; "" when there is none. */
  readonly file: string;
  readonly warnings: readonly string[];
}

/** `subject`: a process id, or the absolute path of a program, which need not exist. Throws USAGE, TARGET_GONE, UNSAFE_MODE. */
export async function testBlacklist(root: string, subject: string): Promise<BlacklistAnswer> {
  const { blacklist, warnings } = await openBlacklist(agentPaths(root));
  const pid = /^[1-9]\d{0,9}$/.test(subject) ? Number(subject) : undefined;
  const executable = pid === undefined ? programAt(subject) : programOf(pid);
  const rule = blacklist.match(executable);
  return {
    executable,
    ...(pid !== undefined && { pid }),
    isBlacklisted: rule !== undefined,
    ...(rule && { rule }),
    file: blacklist.file,
    warnings,
  };
}

function programOf(pid: number): string {
  const executable = executableOf(pid);
  if (executable !== '') return executable;
  throw new KcareError('TARGET_GONE', `There is no process ${pid}, or it runs no program.`, { pid });
}

/** As /proc/PID/exe would name it. */
function programAt(path: string): string {
  if (!path.startsWith('/'))
    throw new KcareError('USAGE', `"${path}" is neither a process id nor an absolute path.`);
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
