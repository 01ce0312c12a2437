// Patches that new processes need and the cache lacks: fetched together, and again later when that fails.

/** Between two attempts at the same patch, milliseconds: doubled each time, up to the longest. */
const shortestPauseMs = 60_000;
const longestPauseMs = 3_600_000;

interface Missing {
  /** Processes that wait for it. */
  readonly pids: Set<number>;
  /** When it is fetched, milliseconds as of performance.now(). */
  due: number;
  pauseMs: number;
}

export class MissingPatches {
  private readonly missing = new Map<string, Missing>();
  private timer: NodeJS.Timeout | undefined;
  private isFetching = false;

  /** `fetch` never throws; `look` is told which processes waited for what was fetched. */
  constructor(
    private readonly fetch: (buildIds: readonly string[]) => Promise<void>,
    private readonly look: (pids: readonly number[]) => void,
  ) {}

  /** One that was fetched in vain waits its time; the process is looked at again then. */
  add(pid: number, buildIds: readonly string[]): void {
    for (const buildId of buildIds) {
      const known = this.missing.get(buildId) ?? { pids: new Set(), due: 0, pauseMs: shortestPauseMs };
      known.pids.add(pid);
      this.missing.set(buildId, known);
    }
    this.wait();
  }

  clear(): void {
    clearTimeout(this.timer);
    this.missing.clear();
  }

  private wait(): void {
    clearTimeout(this.timer);
    const waiting = [...this.missing.values()].filter(({ pids }) => pids.size > 0);
    if (this.isFetching || waiting.length === 0) return;
    const pauseMs = Math.min(...waiting.map(({ due }) => due)) - performance.now();
    this.timer = setTimeout(() => void this.fetchDue(), Math.max(0, pauseMs));
  }

  private async fetchDue(): Promise<void> {
    const now = performance.now();
    const due = [...this.missing].filter(([, { pids, due }]) => pids.size > 0 && due <= now);
    this.isFetching = true;
    await this.fetch(due.map(([buildId]) => buildId));
    this.isFetching = false;
    const pids = new Set(due.flatMap(([, missing]) => [...missing.pids]));
    for (const [, missing] of due) {
      missing.pids.clear();
      missing.due = performance.now() + missing.pauseMs;
      missing.pauseMs = Math.min(longestPauseMs, 2 * missing.pauseMs);
    }
    this.look([...pids]);
    this.wait();
  }
}
