// In which container a process runs, as seen from here.
import { readlinkSync } from 'node:fs';
import { readProcessFile, readProcessLink } from './files.js';

/**
 * The id that container engines put into the names of control groups, shortened as they do; undefined where there is
 * none but those of `own`. The outermost counts: those below it can be made inside of the container. Both are texts of
 * /proc/PID/cgroup (cgroups(7)).
 */
export function containerIdOf(text: string, own = ''): string | undefined {
  const ids = text.match(/[0-9a-f]{64}/g) ?? [];
  return ids.find((id) => !own.includes(id))?.slice(0, 12);
}

/**
 * That id; for a process in another pid namespace whose control group has none, the name of that namespace. Undefined
 * for a process beside this one, also when both are in a container. Throws TARGET_GONE, NOT_PERMITTED.
 */
export function readContainer(pid: number): string | undefined {
  const id = containerIdOf(readProcessFile(pid, 'cgroup'), readProcessFile(process.pid, 'cgroup'));
  if (id !== undefined) return id;
  const namespace = readProcessLink(pid, 'ns/pid');
  return namespace === readlinkSync('/proc/self/ns/pid') ? undefined : namespace;
}
