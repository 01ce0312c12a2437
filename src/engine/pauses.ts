// Sums up how long the threads of one target stood still (R8).

export class Pauses {
  #running = 0;
  #longest = 0;

  /** Nanoseconds: of a thread that was running, and of any thread. */
  add(running: number, longest: number): void {
    this.#running = Math.max(this.#running, running);
    this.#longest = Math.max(this.#longest, running, longest);
  }

  get any(): boolean {
    return this.#longest > 0;
  }

  toReport(): { running: number; longest: number } {
    return { running: this.#running, longest: this.#longest };
  }
}
