// The agent's log: JSON lines in a file. A log that cannot be written never stops patching.
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { destination, pino, type Logger } from 'pino';

export type { Logger };

/** Opens the log at `path`, mode 0600. Returns a silent logger and the problem when that fails. */
export function openLog(path: string): { readonly logger: Logger; readonly problem?: string } {
  const quiet = pino({ enabled: false });
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    // Synchronous: the last lines before a crash are the ones that matter.
    const stream = destination({ dest: path, sync: true, append: true, mode: 0o600 });
    stream.on('error', () => undefined);
    return { logger: pino({ base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, stream) };
  } catch (thrown) {
    return { logger: quiet, problem: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}
