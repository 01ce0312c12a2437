// Starts compilers, builds and other programs in the user's project, and keeps what they print.
import { spawn } from 'node:child_process';
import { KcareError } from '../base/errors.js';

export interface ToolOptions {
  readonly directory: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Send output to the terminal's standard error as it comes; only its end is kept. */
  readonly shown?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface ToolResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const keptBytes = 256 * 1024 * 1024;

/** Runs a program to its end. Throws BUILD_TOOL_FAILED only when it cannot be started or is ended by a signal. */
export function runTool(
  program: string,
  words: readonly string[],
  options: ToolOptions,
): Promise<ToolResult> {
  const { directory, environment, shown, signal } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...words], {
      cwd: directory,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(signal && { signal }),
    });
    const outputs: [Buffer[], Buffer[]] = [[], []];
    [child.stdout, child.stderr].forEach((stream, index) => {
      let size = 0;
      stream.on('data', (chunk: Buffer) => {
        if (shown === true) process.stderr.write(chunk);
        size += chunk.length;
        if (size <= keptBytes) outputs[index]?.push(chunk);
      });
    });
    child.on('error', (error) => {
      reject(new KcareError('BUILD_TOOL_FAILED', `${program} could not be run: ${error.message}`));
    });
    child.on('close', (status, signalName) => {
      if (status === null) {
        reject(new KcareError('BUILD_TOOL_FAILED', `${program} was ended by ${signalName ?? 'a signal'}`));
        return;
      }
      const [stdout, stderr] = outputs.map((chunks) => Buffer.concat(chunks).toString('utf8'));
      resolve({ status, stdout: stdout ?? '', stderr: stderr ?? '' });
    });
  });
}

/** The last lines of what a failed program said. */
export function lastLines({ stdout, stderr }: ToolResult, count = 15): string {
  const text = stderr.trim() === '' ? stdout : stderr;
  return text.trimEnd().split('\n').slice(-count).join('\n');
}

/** Runs `action` for all items, two at a time, as many compilers as small machines bear; keeps the order. */
export async function twoAtATime<T, R>(items: readonly T[], action: (item: T) => Promise<R>): Promise<R[]> {
  const results = new Map<number, R>();
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) {
      const item = items[index];
      if (item !== undefined) results.set(index, await action(item));
    }
  };
  await Promise.all([worker(), worker()]);
  return [...results].sort(([left], [right]) => left - right).map(([, result]) => result);
}
