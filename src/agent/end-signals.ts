// SIGTERM and SIGINT while processes are changed: the first one asks the run to end, the second one ends it at once.

const endSignals = ['SIGTERM', 'SIGINT'] as const;

/**
 * Runs `action` with a signal that is aborted when this process is told to end; its reason is the name, "SIGTERM".
 * A second signal, and one that comes before or after `action`, kills: no target minds (R1).
 */
export async function untilSignalled<Result>(
  action: (ending: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController();
  const end = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) {
      forget();
      process.kill(process.pid, name);
      return;
    }
    controller.abort(name);
    // One that came together with this one is told now; a later one finds no handler.
    setImmediate(forget);
  };
  const forget = (): void => {
    for (const name of endSignals) process.off(name, end);
  };
  for (const name of endSignals) process.on(name, end);
  try {
    return await action(controller.signal);
  } finally {
    forget();
  }
}
