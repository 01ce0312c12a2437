// kcarectl over the processes of a container, from the host and from inside of it.
import { cpSync, existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import type { Inhabitant } from '../../fixtures/support/small-host.js';
import { AnswersHost } from '../scanner/answers-host.js';
import { packageRoot } from '../../src/base/package-root.js';

const id = '5f'.repeat(32);
// One hierarchy for all, or, as before, several.
const hierarchy = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find((path) =>
  existsSync(join(path, 'cgroup.procs')),
);
const group = join(hierarchy ?? '/sys/fs/cgroup/pids', `kcare-test-${id}`);
let host: AnswersHost;
let target: Inhabitant;
/** The root directory of the kcare inside, which follows the same feed. */
let root: string;

beforeAll(async () => {
  host = await AnswersHost.create((world) => [world.patch(1, 43)]);
  target = await host.start();
  root = join(host.world.directory, 'inside');
  cpSync(join(host.agent.root, 'etc'), join(root, 'etc'), { recursive: true });
});
afterAll(async () => {
  await host.remove();
  // The kernel takes an ended process out of its group a little later.
  await vi.waitFor(() => rmdirSync(group), { timeout: 60_000 });
});

const program = join(packageRoot(), 'bin', 'kcarectl');
const outside = (...parameters: readonly string[]): Promise<CommandResult> =>
  host.agent.kcarectl(...parameters, '--pid', String(target.outerPid));
const inside = (...parameters: readonly string[]): Promise<CommandResult> =>
  host.small.run('sh', [
    '-c',
    'echo $$ > "$0" && exec "$@"',
    join(group, 'cgroup.procs'),
    program,
    '--root',
    root,
    ...parameters,
  ]);
const parsed = ({ stdout }: CommandResult): unknown => JSON.parse(stdout);

it('names the container of a process, by the control group that its engine made, else by its pid namespace', async () => {
  const namespace = expect.stringMatching(/^pid:\[\d+\]$/) as string;
  const dry = parsed(await outside('--lib-update', '--dry-run', '--json'));
  expect(dry).toMatchObject({ processes: [{ result: 'would-apply', container: namespace }] });

  mkdirSync(group);
  writeFileSync(join(group, 'cgroup.procs'), String(target.outerPid));
  expect((await outside('--lib-update', '--dry-run')).stdout).toContain(
    `Process ${target.outerPid} (target) in container 5f5f5f5f5f5f would be patched: libanswers.so (level 1).`,
  );
  expect(await outside('--lib-update')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(await host.world.answer(target.program)).toBe('answer 43');
  const container = '5f5f5f5f5f5f';
  expect(parsed(await outside('--lib-info'))).toMatchObject({ result: [{ state: 'patched', container }] });
  expect(parsed(await outside('--lib-patch-info'))).toMatchObject({ result: [{ container }] });
  expect((await outside('info')).stdout).toContain(`(target) in container ${container}\n`);
});

it('leaves to the kcare inside what the host has patched, and the other way round', async () => {
  const update = parsed(await inside('--lib-update', '--json')) as { processes: readonly object[] };
  expect(update).toMatchObject({ applied: 0, processes: [{ pid: target.pid, result: 'unchanged' }] });
  // To itself it is no container.
  expect(update.processes[0]).not.toHaveProperty('container');
  expect(parsed(await inside('--lib-info'))).toMatchObject({ states: { patched: 1, pending: 0 } });
  expect(await inside('--lib-unload')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(await host.world.answer(target.program)).toBe('answer 42');
  expect(parsed(await outside('--lib-info'))).toMatchObject({ states: { patched: 0, pending: 1 } });

  expect(await inside('--lib-update')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(parsed(await outside('--lib-update', '--json'))).toMatchObject({
    processes: [{ result: 'unchanged' }],
  });
  await outside('--lib-unload');
  expect(await host.world.answer(target.program)).toBe('answer 42');
  expect((await inside('--lib-unload')).stdout).toContain('No process is patched.');
});
