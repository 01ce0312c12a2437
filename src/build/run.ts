// Starts the programs that a build needs (apt, dpkg, compiler) and turns their failures into clear errors.
import { execFile } from 'node:child_process';
import { KcareError } from '../base/errors.js';

export interface RunOptions {
  readonly directory?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Text for standard input. */
  readonly input?: string;
}

/** Runs a program and returns its standard output. Throws BUILD_TOOL_FAILED with the end of its messages. */
export function run(
  program: string,
  parameters: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const environment = { ...process.env, LC_ALL: 'C.UTF-8', ...options.environment };
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...parameters],
      {
        env: environment,
        maxBuffer: 256 * 1024 * 1024,
        ...(options.directory && { cwd: options.directory }),
      },
      (error, stdout, stderr) => {
        if (!error) {
          resolve(stdout);
          return;
        }
        const messages = (stderr.trim() || stdout.trim() || error.message).split('\n').slice(-15).join('\n');
        const missing = 'code' in error && error.code === 'ENOENT' ? ' (is it installed?)' : '';
        reject(
          new KcareError('BUILD_TOOL_FAILED', `${program} failed${missing}: ${messages}`, {
            command: [program, ...parameters].join(' '),
          }),
        );
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
  });
}
