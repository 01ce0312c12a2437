// The agent's log: JSON lines in a file. A log that cannot be written never stops patching.
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { destination, pino, type Logger } from 'pino';

export type { Logger };

/** Opens the log at `path`, mode 0600; `problem` says what went wrong with it so far. Returns a silent logger when it cannot be opened. */
export function openLog(path: string): {
  readonly logger: Logger;
  readonly problem: () => string | undefined;
} {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    // Synchronous: the last lines before a crash are the ones that matter.
    const stream = destination({ dest: path, sync: true, append: true, mode: 0o600 });
    let problem: string | undefined;
    stream.on('error', (error: Error) => (problem ??= error.message));
    const settings = { base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime };
    return { logger: pino(settings, stream), problem: () => problem };
  } catch (thrown) {
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return { logger: pino({ enabled: false }), problem: () => message };
  }
}
