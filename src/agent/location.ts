// Where a process runs, for those who read what was done to it.
import { readContainer } from '../proc/index.js';

export interface Location {
  /** The id of its container, or the name of its pid namespace; absent for a process of this container, or of none. */
  readonly container?: string;
}

/** Nothing for a process that has ended or may not be looked at. */
export function locate(pid: number): Location {
  try {
    const container = readContainer(pid);
    return container === undefined ? {} : { container };
  } catch {
    return {};
  }
}
