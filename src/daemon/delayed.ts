// Processes that are looked at some time after the last that was heard of them.

export class Delayed {
  /** Time at which each is due, in the order in which they are. */
  private readonly due = new Map<number, number>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly delayMs: number,
    private readonly hand: (pids: readonly number[]) => void,
  ) {}

  add(pids: readonly number[]): void {
    const due = performance.now() + this.delayMs;
    for (const pid of pids) {
      this.due.delete(pid);
      this.due.set(pid, due);
    }
    this.wait();
  }

  has(pid: number): boolean {
    return this.due.has(pid);
  }

  clear(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.due.clear();
  }

  private wait(): void {
    const [first] = this.due.values();
    if (this.timer !== undefined || first === undefined) return;
    this.timer = setTimeout(() => this.handOver(), Math.max(1, first - performance.now()));
  }

  private handOver(): void {
    this.timer = undefined;
    const now = performance.now();
    const ready: number[] = [];
    for (const [pid, due] of this.due) {
      if (due > now) break;
      ready.push(pid);
    }
    for (const pid of ready) this.due.delete(pid);
    if (ready.length > 0) this.hand(ready);
    this.wait();
  }
}
