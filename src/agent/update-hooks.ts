// Programs of the administrator that run before and after an update.
import { spawn } from 'node:child_process';
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { KcareError } from '../base/errors.js';
import { checkSafeProgram, safeDirectory } from '../base/safe-files.js';
import type { AgentPaths } from './paths.js';

export type UpdateEvent = 'before-update' | 'after-update';

export interface HookOptions {
  /** Beside KCARE_EVENT and a plain PATH, all that the programs find in their environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** For each program, milliseconds. Default one minute. */
  readonly timeoutMs?: number;
}

const defaultTimeoutMs = 60_000;
/** As much of what a program prints is kept, from its end. */
const longestOutput = 4096;
const plainPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export function hookDirectory({ hooks }: Pick<AgentPaths, 'hooks'>, event: UpdateEvent): string {
  return join(hooks, `${event}.d`);
}

/**
 * Runs the programs of an event one after the other, in the order of their names. Names with other characters than
 * letters, digits, "_" and "-" (so: backups of editors and packages) and files that are not executable are left out, as
 * run-parts does. Throws HOOK_FAILED at the first that fails, UNSAFE_MODE when others than root could change one (R10).
 */
export async function runUpdateHooks(
  paths: Pick<AgentPaths, 'hooks'>,
  event: UpdateEvent,
  options: HookOptions,
): Promise<void> {
  const programs = await findHooks(paths, event);
  for (const program of programs) await runHook(program, event, options);
}

/** Whole paths, in order. Throws UNSAFE_MODE: one unsafe program keeps all from running. */
export async function findHooks(
  paths: Pick<AgentPaths, 'hooks'>,
  event: UpdateEvent,
): Promise<readonly string[]> {
  const directory = hookDirectory(paths, event);
  if (!existsSync(directory)) return [];
  await safeDirectory(directory);
  const names = readdirSync(directory)
    .filter((name) => /^[\w-]+$/.test(name))
    .sort();
  const programs = names
    .map((name) => join(directory, name))
    .filter((path) => {
      const status = lstatSync(path);
      return status.isSymbolicLink() || (status.isFile() && (status.mode & 0o111) !== 0);
    });
  for (const path of programs) await checkSafeProgram(path);
  return programs;
}

async function runHook(program: string, event: UpdateEvent, options: HookOptions): Promise<void> {
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  const child = spawn(program, [], {
    cwd: '/',
    env: { PATH: plainPath, KCARE_EVENT: event, ...options.environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: what the program has started ends with it when its time is over.
    detached: true,
  });
  let output = '';
  const keep = (bytes: Buffer): void => {
    output = (output + bytes.toString('utf8')).slice(-longestOutput);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const late = new AbortController();
  const timer = setTimeout(() => {
    late.abort();
    if (child.pid !== undefined) killGroup(child.pid);
  }, timeoutMs);
  const how = await new Promise<string | undefined>((done) => {
    child.once('error', (error) => done(`cannot be run: ${error.message}`));
    // Not "close": a program in the background that keeps the output open is not waited for.
    child.once('exit', (code, signal) => done(ending(code, signal)));
  });
  clearTimeout(timer);
  child.stdout.destroy();
  child.stderr.destroy();
  const why = late.signal.aborted ? `did not end within ${timeoutMs / 1000} s` : how;
  if (why === undefined) return;
  const said = output.trim() === '' ? '' : ` It said: ${output.trim()}`;
  throw new KcareError('HOOK_FAILED', `The ${event} hook ${program} ${why}.${said}`, { program, event });
}

function ending(code: number | null, signal: NodeJS.Signals | null): string | undefined {
  if (signal !== null) return `was ended by ${signal}`;
  return code === 0 ? undefined : `ended with exit status ${code}`;
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
