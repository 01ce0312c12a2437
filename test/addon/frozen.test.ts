// Targets in frozen cgroups: a bounded wait, a clear answer, nothing changed, and all is well once they are thawed.
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { callIn, mapCall, pageSize, statusLine } from './target.js';
import { FunctionsTarget, states } from './functions-target.js';
import { readMappings } from '../../fixtures/support/process-memory.js';

interface Freezer {
  readonly version: 1 | 2;
  readonly root: string;
}

/** A test must fail, not skip, where there is none: every Debian 12 has version 2. */
const freezers: Freezer[] = fs
  .readFileSync('/proc/mounts', 'utf8')
  .split('\n')
  .flatMap((line): Freezer[] => {
    const [, root = '', type = '', options = ''] = line.split(' ');
    if (type === 'cgroup' && options.split(',').includes('freezer')) return [{ version: 1, root }];
    return type === 'cgroup2' ? [{ version: 2, root }] : [];
  });

class Cgroup {
  private readonly directory: string;

  constructor(
    private readonly freezer: Freezer,
    private readonly pid: number,
  ) {
    this.directory = path.join(freezer.root, `kcare-test-${pid}`);
    fs.mkdirSync(this.directory);
    fs.writeFileSync(path.join(this.directory, 'cgroup.procs'), `${pid}`);
  }

  freeze(frozen: boolean): void {
    if (this.freezer.version === 1) this.write('freezer.state', frozen ? 'FROZEN' : 'THAWED');
    else this.write('cgroup.freeze', frozen ? '1' : '0');
  }

  isFrozen(): boolean {
    return this.freezer.version === 1
      ? this.read('freezer.state') === 'FROZEN\n'
      : this.read('cgroup.events').includes('frozen 1');
  }

  remove(): void {
    this.freeze(false);
    fs.writeFileSync(path.join(this.freezer.root, 'cgroup.procs'), `${this.pid}`);
    fs.rmdirSync(this.directory);
  }

  private write(name: string, text: string): void {
    fs.writeFileSync(path.join(this.directory, name), text);
  }

  private read(name: string): string {
    return fs.readFileSync(path.join(this.directory, name), 'utf8');
  }
}

let target: FunctionsTarget | undefined;
let cgroup: Cgroup | undefined;

afterEach(async () => {
  cgroup?.remove();
  cgroup = undefined;
  await target?.program.end();
  target = undefined;
});

describe('a frozen process', () => {
  it('can be made here', () => {
    expect(freezers.length, 'no cgroup with a freezer is mounted').toBeGreaterThan(0);
  });

  it.each(freezers)('in cgroup version $version waits for its thaw', async (freezer) => {
    target = await FunctionsTarget.start(1, 2);
    const { pid } = target;
    const before = readMappings(pid);
    const group = new Cgroup(freezer, pid);
    cgroup = group;
    group.freeze(true);
    await expect.poll(() => group.isFrozen()).toBe(true);

    const began = performance.now();
    const call = callIn(pid, [mapCall(pageSize, 3n)]);
    expect(call.outcome).toBe('busy');
    expect(call).toHaveProperty('reason', expect.stringMatching(/thread \d+ .* in state [DS] .*frozen/));
    const commit = target.commit(true);
    expect(performance.now() - began).toBeLessThan(10_000);
    if (freezer.version === 1) {
      expect(commit.outcome).toBe('busy');
      expect(commit).toHaveProperty('reason', expect.stringMatching(/thread \d+ .* in state D .*frozen/));
    } else if (commit.outcome === 'committed') {
      // Threads that can be stopped can be examined; a frozen one may as well stand inside the function.
      expect(target.commit(false)).toMatchObject({ outcome: 'committed' });
    }
    expect(target.isOriginal()).toBe(true);
    expect(target.state()).toBe(states.prepared);
    expect(statusLine(pid, 'TracerPid')).toBe('0');
    expect(group.isFrozen()).toBe(true);

    group.freeze(false);
    expect(readMappings(pid)).toEqual(before);
    expect(callIn(pid, [mapCall(pageSize, 3n)])).toMatchObject({ outcome: 'done' });
    expect(await target.commitPatiently(true)).toMatchObject({ outcome: 'committed' });
    expect((await target.finish()).wrong).toBe(0);
  });
});
