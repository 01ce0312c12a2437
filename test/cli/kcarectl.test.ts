// kcarectl as a user runs it: its own process, a signed feed on disk, real targets; only these are ever named to it.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, test } from 'vitest';
import { runKcarectl } from '../../fixtures/support/kcarectl.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import type { Program } from '../../fixtures/support/program.js';
import { AnswersWorld } from '../host/answers.js';

let world: AnswersWorld;
let host: LocalHost;

beforeAll(async () => {
  world = new AnswersWorld();
  host = await LocalHost.create(join(world.directory, 'host'), [
    world.writePatchFile(world.patch(1, 43), 'level-1'),
  ]);
});
afterEach(() => world.end());
afterAll(() => world.remove());

const pidsOf = (...programs: readonly Program[]): string => programs.map(({ pid }) => pid).join(',');

describe('the kernel of this machine, for which the feed has no patch and which may not take any', () => {
  it('is left as it is with a clear message; its libraries are patched as ever', async () => {
    const update = await host.kcarectl('--update');
    expect(update).toMatchObject({ exitCode: 2, stdout: '' });
    expect(update.stderr).toMatch(/kernel.*(?:cannot be patched|no patch)/is);
    expect((await host.kcarectl('--status')).exitCode).toBe(3);
    expect(await host.kcarectl('--unload')).toMatchObject({ exitCode: 0 });
    const program = await world.start();
    expect(await host.kcarectl('--lib-update', '--pid', pidsOf(program))).toMatchObject({ exitCode: 0 });
    expect(await world.answer(program)).toBe('answer 43');
  });

  it('follows the feed of a patch type that --set-patch-type chooses, alone or with an update', async () => {
    const setting = (): string =>
      /^PATCH_TYPE=.*$/m.exec(readFileSync(join(host.root, 'etc/sysconfig/kcare/kcare.conf'), 'utf8'))?.[0] ??
      '';
    expect(await host.kcarectl('--set-patch-type', 'free')).toEqual({
      ...{ exitCode: 0, stdout: 'PATCH_TYPE is free now.\n', stderr: '' },
    });
    expect(setting()).toBe('PATCH_TYPE=free');
    const update = await host.kcarectl('--set-patch-type', 'extra', '--update');
    expect(update).toMatchObject({ exitCode: 2, stdout: 'PATCH_TYPE is extra now.\n' });
    expect(setting()).toBe('PATCH_TYPE=extra');
    expect((await host.kcarectl('--set-patch-type', 'gratis')).exitCode).toBe(64);
    const json = await host.kcarectl('--set-patch-type', 'default', '--json');
    expect(json).toMatchObject({ exitCode: 0, stdout: '{"patchType":"default"}\n' });
    expect(setting()).toBe('');
  });
});

describe('--lib-update, --lib-info, --lib-patch-info, --lib-unload', () => {
  it('say what users’ scripts expect, do it, and do nothing the second time', async () => {
    const first = await world.start();
    const second = await world.start();
    const pids = ['--pid', pidsOf(first, second)];
    expect(await host.kcarectl('--lib-update', ...pids)).toEqual({
      exitCode: 0,
      stdout:
        'The patches have been successfully applied to 2 newly discovered processes. The overall amount of applied patches is 2.\n' +
        'Object `libanswers.so` is patched for 2 processes.\n' +
        'Userspace patches are applied.\n',
      stderr: '',
    });
    expect(await world.answer(first)).toBe('answer 43');
    expect((await host.kcarectl('--lib-update', ...pids)).stdout).toBe(
      'There are no newly discovered processes that could be patched. The overall amount of applied patches is 2.\n' +
        'Object `libanswers.so` is patched for 2 processes.\n' +
        'Userspace patches are applied.\n',
    );
    const { buildId } = world.patch(1, 43);
    const object = {
      name: 'libanswers.so',
      buildid: buildId,
      patchlvl: 1,
      patchset: expect.stringMatching(/^U\d{8}_01$/) as string,
      state: 'active',
    };
    expect(JSON.parse((await host.kcarectl('--lib-info', ...pids)).stdout)).toEqual({
      result: [first, second].map(({ pid }) => ({
        pid,
        comm: 'target',
        objects: [object],
        state: 'patched',
      })),
      states: { patched: 2, pending: 0, excluded: 0, unpatchable: 0, 'not-needed': 0 },
      patchset: object.patchset,
    });
    expect(JSON.parse((await host.kcarectl('--lib-patch-info', '--pid', String(first.pid))).stdout)).toEqual({
      result: [
        {
          pid: first.pid,
          comm: 'target',
          object: 'libanswers.so',
          buildid: buildId,
          patchlvl: 1,
          patchset: object.patchset,
          package: 'libanswers',
          version: '1',
          fixed: '2',
          patches: [
            { cve: 'CVE-2026-0001', description: 'Wrong answer', score: '5.0', url: 'https://example.org' },
          ],
        },
      ],
    });
    expect(await host.kcarectl('--lib-unload', ...pids)).toEqual({
      exitCode: 0,
      stdout:
        'The patches have been removed from 2 processes.\nObject `libanswers.so` is unpatched for 2 processes.\nUserspace patches are unloaded.\n',
      stderr: '',
    });
    expect(await world.answer(first)).toBe('answer 42');
    const unpatched = {
      objects: [],
      state: 'pending',
      missing: [{ name: 'libanswers.so', buildid: buildId, patchlvl: 1 }],
      reason: expect.stringMatching(/^Its patches were taken out at 2\d{3}-/) as string,
      since: expect.stringMatching(/^2\d{3}-/) as string,
    };
    expect(JSON.parse((await host.kcarectl('--lib-info', ...pids)).stdout)).toMatchObject({
      result: [unpatched, unpatched],
      states: { patched: 0, pending: 2 },
    });
    // Without a feed nothing is known of processes that are not patched.
    const stranger = await runKcarectl(join(host.directory, 'stranger'), ['--lib-info', ...pids]);
    expect(JSON.parse(stranger.stdout)).toMatchObject({
      result: [],
      patchset: null,
      problem: { code: 'FEED_NOT_CACHED' },
    });
    expect((await host.kcarectl('--lib-unload', ...pids)).stdout).toBe(
      'No process is patched.\nUserspace patches are unloaded.\n',
    );
  });

  it('with --dry-run say what would happen to each process and why not, and change nothing', async () => {
    const target = await world.start();
    const excluded = await world.start('gdb');
    const { exitCode, stdout } = await host.kcarectl(
      '--lib-update',
      '--dry-run',
      '--pid',
      pidsOf(target, excluded),
    );
    expect(exitCode).toBe(0);
    expect(stdout).toContain(`Process ${target.pid} (target) would be patched: libanswers.so (level 1).\n`);
    expect(stdout).toMatch(
      new RegExp(
        `Process ${excluded.pid} \\(gdb\\) would be left as it is: blacklisted by "filename:gdb" \\(debugger\\), line \\d+ of .*blacklists/default\\.`,
      ),
    );
    expect(stdout).toMatch(/This was a dry run: nothing has been changed\.\n$/);
    expect(await world.answer(target)).toBe('answer 42');
    const info = await host.kcarectl('--lib-info', '--pid', pidsOf(target, excluded));
    expect(JSON.parse(info.stdout)).toMatchObject({
      result: [
        { pid: target.pid, objects: [], state: 'pending' },
        {
          pid: excluded.pid,
          objects: [],
          state: 'excluded',
          rule: { text: 'filename:gdb', reason: 'debugger' },
        },
      ],
      states: { patched: 0, pending: 1, excluded: 1 },
    });
  });

  it('say which process could not be patched and why, with exit code 4, and count it nowhere (R6)', async () => {
    const blocked = await world.startBlocked();
    const free = await world.start();
    const busyHost = await LocalHost.create(join(world.directory, 'busy-host'), [
      world.writePatchFile(world.blocker(1), 'blocker'),
    ]);
    const both = ['--wait', '0.2', '--pid', pidsOf(blocked, free)];
    const { exitCode, stdout } = await busyHost.kcarectl('--lib-update', ...both);
    expect(stdout).toContain(
      'applied to 1 newly discovered process. The overall amount of applied patches is 1.\n',
    );
    expect(stdout).toMatch(
      new RegExp(`^Process ${blocked.pid} \\(target\\) is not changed: busy: .*wait_inside`, 'm'),
    );
    expect(stdout).toMatch(/Userspace patches are not applied everywhere: 1 process left\.\n$/);
    expect(exitCode).toBe(4);
    const json = await busyHost.kcarectl('--lib-update', '--json', ...both);
    expect(JSON.parse(json.stdout)).toMatchObject({
      applied: 0,
      patches: 1,
      exitCode: 4,
      processes: [
        { pid: blocked.pid, result: 'busy', objects: [], error: { code: 'TARGET_BUSY' } },
        { pid: free.pid, result: 'unchanged' },
      ].sort((left, right) => left.pid - right.pid),
    });
    const info = await busyHost.kcarectl('--lib-info', '--pid', pidsOf(blocked, free));
    expect(JSON.parse(info.stdout)).toMatchObject({
      result: [
        {
          pid: blocked.pid,
          objects: [],
          state: 'pending',
          code: 'TARGET_BUSY',
          reason: expect.stringContaining('wait_inside') as string,
        },
        { pid: free.pid, state: 'patched' },
      ].sort((left, right) => left.pid - right.pid),
    });
    expect((await busyHost.kcarectl('--lib-unload', '--pid', pidsOf(blocked, free))).exitCode).toBe(0);
  });

  it('write what they did to the log', async () => {
    const target = await world.start();
    await host.kcarectl('--lib-update', '--pid', String(target.pid));
    const lines = readFileSync(join(host.root, 'var/log/kcarectl.log'), 'utf8').trimEnd().split('\n');
    const entries = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(entries).toContainEqual(
      expect.objectContaining({ command: '--lib-update', target: target.pid, outcome: 'applied' }),
    );
    await host.kcarectl('--lib-unload', '--pid', String(target.pid));
  });

  it('are what --userspace-update libs does; QEMU is not promised', async () => {
    const target = await world.start();
    const pid = ['--pid', String(target.pid)];
    expect((await host.kcarectl('--userspace-update', 'qemu', ...pid)).exitCode).toBe(64);
    const both = await host.kcarectl('--userspace-update', 'libs,qemu', '--dry-run', ...pid);
    expect(both).toMatchObject({
      exitCode: 0,
      stderr: expect.stringContaining('QEMU are not available') as string,
    });
    expect((await host.kcarectl('--userspace-update', ...pid)).stdout).toContain(
      'applied to 1 newly discovered process.',
    );
    expect(await world.answer(target)).toBe('answer 43');
  });
});

describe('kcarectl', () => {
  it('refuses a feed without a trusted key, and a server that is not configured', async () => {
    const target = await world.start();
    const bare = join(world.directory, 'bare');
    const json = await runKcarectl(bare, ['--lib-update', '--json', '--pid', String(target.pid)]);
    expect(json.exitCode).toBe(2);
    expect(JSON.parse(json.stdout)).toMatchObject({
      error: { code: 'CONFIG_INVALID', message: expect.stringContaining('PATCH_SERVER') as string },
    });
    const stranger = await LocalHost.create(join(world.directory, 'stranger'), [
      world.writePatchFile(world.patch(1, 45), 'stranger'),
    ]);
    writeFileSync(
      join(stranger.root, 'etc/sysconfig/kcare/kcare.conf'),
      `PATCH_SERVER=${host.feedDirectory}\n`,
    );
    const untrusted = await stranger.kcarectl('--lib-update', '--pid', String(target.pid));
    expect(untrusted).toMatchObject({
      exitCode: 2,
      stdout: '',
      stderr: expect.stringContaining('--import-key') as string,
    });
    expect(await world.answer(target)).toBe('answer 42');
  });

  test.each([
    [[]],
    [['--lib-update', '--lib-info']],
    [['--lib-info', '--dry-run']],
    [['--lib-update', '--wait', 'long']],
    [['--lib-update', '--wait', '-1']],
    [['--lib-update', '--pid', '0']],
    [['--lib-update', '--pid', '1x']],
    [['--update', '--info']],
    [['--info', '--force']],
    [['--update', '--freezer', 'some']],
    [['--check', '--test', '--prefix', '12h']],
    [['--lib-info', 'extra']],
    [['--lib-update', '--prefix', 'test']],
    [['--lib-info', '--test']],
    [['--lib-update', '--output', 'file']],
    [['--metrics', '--pid', '1']],
    [['--enable-libcare', '--pid', '1']],
    [['--userspace-update', 'kernels']],
    [['--import-key']],
  ])('answers %j with exit code 64 and a hint', async (parameters) => {
    const { exitCode, stdout, stderr } = await runKcarectl('/proc/nonexistent', parameters);
    expect(exitCode).toBe(64);
    expect(stdout).toBe('');
    expect(stderr).toContain('--help');
  });

  it('explains itself: every option, file, exit code', async () => {
    const { exitCode, stdout } = await runKcarectl('/proc/nonexistent', ['--help']);
    expect(exitCode).toBe(0);
    for (const section of [
      'NAME',
      'SYNOPSIS',
      'DESCRIPTION',
      'OPTIONS',
      'FILES',
      'ENVIRONMENT',
      'EXIT STATUS',
      'EXAMPLES',
    ]) {
      expect(stdout).toMatch(new RegExp(`^${section}$`, 'm'));
    }
    const described = [...stdout.matchAll(/^ {7}(--[a-z-]+)/gm)].map(([, option]) => option);
    expect(described).toEqual(
      expect.arrayContaining([
        '--lib-update',
        '--lib-info',
        '--lib-patch-info',
        '--lib-unload',
        '--import-key',
        '--userspace-update',
        '--dry-run',
        '--wait',
        '--pid',
        '--root',
        '--json',
        '--version',
        '--help',
      ]),
    );
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    expect((await runKcarectl('/proc/nonexistent', ['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it.each([
    ['x\u001b[2Jy', 'x\\u001b[2Jy'],
    ['kcarectl', 'kcarectl'],
    ['a\nb (deleted)', 'a\\u000ab (deleted)'],
    ['c\r\u009b1md', 'c\\u000d\\u009b1md'],
  ])('never lets a process write to the terminal by its name', async (name, shown) => {
    const hostile = await world.start(name);
    for (const options of [['--lib-update', '--dry-run'], ['--lib-update'], ['--lib-info']]) {
      const { stdout, stderr } = await host.kcarectl(...options, '--pid', String(hostile.pid));
      // eslint-disable-next-line no-control-regex -- that there is none is what is tested
      expect(stdout + stderr).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
      if (options.includes('--dry-run')) expect(stdout).toContain(shown);
    }
    expect(await world.answer(hostile)).toBe('answer 43');
  });
});
