// Updates by policy, hooks, LibCare on and off, and the blacklist's answer, by the real command against real processes.
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from 'vitest';
import { LocalHost } from '../../fixtures/support/local-host.js';
import type { Program } from '../../fixtures/support/program.js';
import { AnswersWorld } from '../host/answers.js';

let world: AnswersWorld;
let host: LocalHost;
let hosts = 0;

beforeAll(() => {
  world = new AnswersWorld();
});
beforeEach(async () => {
  host = await LocalHost.create(join(world.directory, `host-${(hosts += 1)}`), [
    world.writePatchFile(world.patch(1, 43), 'level-1'),
  ]);
});
afterEach(() => world.end());
afterAll(() => world.remove());

const only = (...programs: readonly Program[]): readonly string[] => [
  '--pid',
  programs.map(({ pid }) => pid).join(','),
];
const config = (): string => join(host.root, 'etc/sysconfig/kcare/kcare.conf');
const set = (line: string): void => appendFileSync(config(), `${line}\n`);
const parsed = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>;
const auto = ['--lib-auto-update', '--no-jitter'];

describe('--lib-auto-update', () => {
  it('patches and says so once, then is silent', async () => {
    const target = await world.start();
    const first = await host.kcarectl('--lib-auto-update', '--jitter', '0.2', ...only(target));
    expect(first).toMatchObject({ exitCode: 0, stderr: '' });
    expect(first.stdout).toContain('applied to 1 newly discovered process.');
    expect(await world.answer(target)).toBe('answer 43');
    expect(await host.kcarectl(...auto, ...only(target))).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    const json = parsed((await host.kcarectl(...auto, '--json', ...only(target))).stdout);
    expect(json).toMatchObject({ processes: [{ pid: target.pid, result: 'unchanged' }], exitCode: 0 });
  });

  it('reports a process that it leaves behind once, and gives the exit status every time', async () => {
    const blocked = await world.startBlocked();
    await host.publish([world.writePatchFile(world.blocker(2), 'blocker')]);
    const wait = ['--wait', '0', ...only(blocked)];
    const first = await host.kcarectl(...auto, ...wait);
    expect(first.exitCode).toBe(4);
    expect(first.stdout).toContain(`Process ${blocked.pid} (target) is not changed: busy`);
    expect(await host.kcarectl(...auto, ...wait)).toEqual({ exitCode: 4, stdout: '', stderr: '' });
  });

  it.each([['AUTO_UPDATE=NO'], ['USERSPACE_PATCHES=qemu']])('does nothing with %s', async (line) => {
    const target = await world.start();
    set(line);
    expect(await host.kcarectl(...auto, ...only(target))).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    const json = parsed((await host.kcarectl(...auto, '--json', ...only(target))).stdout);
    expect(json).toMatchObject({ skipped: expect.stringContaining(line.split('=')[0] ?? '') as string });
    expect(await world.answer(target)).toBe('answer 42');
    // By hand it can be done all the same.
    expect((await host.kcarectl('--lib-update', ...only(target))).exitCode).toBe(0);
    expect(await world.answer(target)).toBe('answer 43');
  });

  it('obeys AUTO_STICKY_PATCHSET and AUTO_UPDATE_DELAY, which an update by hand does not', async () => {
    const target = await world.start();
    const first = parsed(
      (await host.kcarectl('--lib-update', '--dry-run', '--json', ...only(target))).stdout,
    );
    await host.publish([world.writePatchFile(world.patch(2, 44), 'level-2')]);
    set(`AUTO_STICKY_PATCHSET=${String(first['patchset'])}`);
    expect((await host.kcarectl(...auto, ...only(target))).exitCode).toBe(0);
    expect(await world.answer(target)).toBe('answer 43');
    await host.kcarectl('--lib-update', ...only(target));
    expect(await world.answer(target)).toBe('answer 44');
    await host.kcarectl('--lib-unload', ...only(target));
    set('AUTO_UPDATE_DELAY=24h');
    const late = parsed((await host.kcarectl(...auto, '--json', ...only(target))).stdout);
    expect(late).toMatchObject({ patchset: null, processes: [] });
    expect(await world.answer(target)).toBe('answer 42');
  });

  test.each([['--lib-update'], ['--lib-info']])('its options do not go with %s', async (action) => {
    expect((await host.kcarectl(action, '--no-jitter')).exitCode).toBe(64);
    expect((await host.kcarectl(action, '--jitter', '1')).exitCode).toBe(64);
  });
});

describe('UPDATE_POLICY', () => {
  const smart = '--lib-smart-update';
  const takeServerAway = (): void => renameSync(host.feedDirectory, `${host.feedDirectory}.away`);

  it('REMOTE asks the server every time', async () => {
    const target = await world.start();
    await host.kcarectl(smart, ...only(target));
    expect(await world.answer(target)).toBe('answer 43');
    takeServerAway();
    const { exitCode, stdout } = await host.kcarectl(smart, '--json', ...only(target));
    expect(exitCode).toBe(1);
    expect(parsed(stdout)).toMatchObject({ error: { code: 'FEED_UNREACHABLE' } });
  });

  it('LOCAL uses the cache alone, and does nothing when that is empty', async () => {
    const target = await world.start();
    set('UPDATE_POLICY=LOCAL');
    const empty = await host.kcarectl(smart, ...only(target));
    expect(empty.exitCode).toBe(0);
    expect(empty.stderr).toContain('UPDATE_POLICY is LOCAL, and nothing is done');
    expect(await world.answer(target)).toBe('answer 42');
    await host.kcarectl('--lib-update', ...only(target));
    await host.kcarectl('--lib-unload', ...only(target));
    await host.publish([world.writePatchFile(world.patch(2, 44), 'level-2')]);
    takeServerAway();
    expect((await host.kcarectl(smart, ...only(target))).exitCode).toBe(0);
    expect(await world.answer(target)).toBe('answer 43');
  });

  it('LOCAL leaves out, and names, a patch that was never fetched', async () => {
    const target = await world.start();
    set('UPDATE_POLICY=LOCAL');
    // The metadata is fetched; no process needs the patch.
    await host.kcarectl('--lib-update', '--dry-run', '--pid', `${process.pid}`);
    const result = await host.kcarectl(smart, ...only(target));
    expect(result.stderr).toContain(`the patch for ${world.patch(1, 43).buildId} is not in the cache`);
    expect(await world.answer(target)).toBe('answer 42');
  });

  it('LOCAL_FIRST takes what is cached, else asks the server', async () => {
    const target = await world.start();
    set('UPDATE_POLICY=LOCAL_FIRST');
    expect((await host.kcarectl(smart, ...only(target))).exitCode).toBe(0);
    expect(await world.answer(target)).toBe('answer 43');
    await host.publish([world.writePatchFile(world.patch(2, 44), 'level-2')]);
    await host.kcarectl(smart, ...only(target));
    expect(await world.answer(target)).toBe('answer 43');
    takeServerAway();
    expect((await host.kcarectl(smart, ...only(target))).exitCode).toBe(0);
    rmSync(join(host.root, 'var/cache/kcare'), { recursive: true });
    expect((await host.kcarectl(smart, ...only(target))).exitCode).toBe(1);
  });
});

describe('--set-sticky-patch', () => {
  const setting = (): string | undefined => /^STICKY_PATCH=.*$/m.exec(readFileSync(config(), 'utf8'))?.[0];

  it('writes the date in one form, and says which patchset that is', async () => {
    expect((await host.kcarectl('--set-sticky-patch', '250518')).stdout).toBe(
      'STICKY_PATCH is 2018-05-25 now.\nWhich patchset libraries follow is not known: No feed was fetched yet, so that it is not known which processes could be patched.\n',
    );
    const target = await world.start();
    expect((await host.kcarectl('--lib-update', ...only(target))).stdout).toMatch(
      /^The feed has no patchset/,
    );
    expect(await world.answer(target)).toBe('answer 42');
    await host.kcarectl('--set-sticky-patch', '');
    await host.kcarectl('--lib-update', ...only(target));
    expect((await host.kcarectl('--set-sticky-patch=25052018')).stdout).toBe(
      'STICKY_PATCH is 2018-05-25 now.\nThe feed has no patchset for libraries that is so old: none is applied.\n',
    );
    expect(setting()).toBe('STICKY_PATCH=2018-05-25');
    const today = new Date().toISOString().slice(0, 10);
    const json = parsed((await host.kcarectl('--set-sticky-patch', today, '--json')).stdout);
    expect(json).toMatchObject({
      stickyPatch: today,
      patchset: expect.stringMatching(/^U\d{8}_01$/) as string,
    });
    expect(setting()).toBe(`STICKY_PATCH=${today}`);
    expect((await host.kcarectl('--set-sticky-patch', '')).stdout).toMatch(
      /^STICKY_PATCH is taken out\.\nLibraries follow patchset U\d{8}_01\.\n$/,
    );
    expect(setting()).toBeUndefined();
  });

  it.each(['KEY', '310226', 'yesterday', '2018-05-25\nPREFIX=test'])(
    'refuses %j and writes nothing',
    async (value) => {
      const before = readFileSync(config(), 'utf8');
      const { exitCode, stdout } = await host.kcarectl('--set-sticky-patch', value, '--json');
      expect(exitCode).toBe(2);
      expect(parsed(stdout)).toMatchObject({ error: { code: 'CONFIG_INVALID' } });
      expect(readFileSync(config(), 'utf8')).toBe(before);
    },
  );
});

describe('hooks', () => {
  function hook(event: 'before' | 'after', name: string, script: string): string {
    const path = join(host.root, `etc/sysconfig/kcare/hooks/${event}-update.d`, name);
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  it('run around an update that changes something, in order, and are told about it', async () => {
    const target = await world.start();
    const trace = join(host.directory, 'trace');
    hook('before', '10-first', `echo "first $KCARE_EVENT $KCARE_PATCHSET" >> ${trace}`);
    hook('before', '20-second', `echo "second $PATH" >> ${trace}`);
    hook('before', '30-backup.bak', `echo backup >> ${trace}`);
    chmodSync(hook('before', '40-off', `echo off >> ${trace}`), 0o644);
    hook(
      'after',
      'last',
      `echo "$KCARE_EVENT $KCARE_APPLIED $KCARE_LEFT $KCARE_EXIT_STATUS $KCARE_ROOT" >> ${trace}`,
    );
    await host.kcarectl('--lib-update', '--dry-run', ...only(target));
    expect(existsSync(trace)).toBe(false);
    expect(await host.kcarectl('--lib-update', ...only(target))).toMatchObject({ exitCode: 0, stderr: '' });
    const lines = readFileSync(trace, 'utf8').trimEnd().split('\n');
    expect(lines).toEqual([
      expect.stringMatching(/^first before-update U\d{8}_01$/),
      'second /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      `after-update 1 0 0 ${host.root}`,
    ]);
    await host.kcarectl('--lib-update', ...only(target));
    expect(readFileSync(trace, 'utf8').trimEnd().split('\n')).toEqual(lines);
  });

  it('that fail before the update keep it from being done', async () => {
    const target = await world.start();
    hook('before', 'refuse', 'echo "not during the sale" >&2; exit 3');
    const { exitCode, stdout } = await host.kcarectl('--lib-update', '--json', ...only(target));
    expect(exitCode).toBe(2);
    expect(parsed(stdout)).toMatchObject({
      error: {
        code: 'HOOK_FAILED',
        message: expect.stringMatching(
          /refuse ended with exit status 3\. It said: not during the sale$/,
        ) as string,
      },
    });
    expect(await world.answer(target)).toBe('answer 42');
  });

  it('that fail afterwards are a warning', async () => {
    const target = await world.start();
    hook('after', 'complain', 'exit 1');
    const { exitCode, stderr } = await host.kcarectl('--lib-update', ...only(target));
    expect(exitCode).toBe(0);
    expect(stderr).toMatch(/complain ended with exit status 1/);
    expect(await world.answer(target)).toBe('answer 43');
  });

  it('that others could change are refused, and nothing is changed (R10)', async () => {
    const target = await world.start();
    const path = hook('before', 'open', 'exit 0');
    chmodSync(path, 0o777);
    const open = await host.kcarectl('--lib-update', '--json', ...only(target));
    expect(parsed(open.stdout)).toMatchObject({ error: { code: 'UNSAFE_MODE' } });
    rmSync(path);
    symlinkSync('/bin/true', path);
    const link = await host.kcarectl('--lib-update', '--json', ...only(target));
    expect(parsed(link.stdout)).toMatchObject({ error: { code: 'UNSAFE_MODE' } });
    expect(await world.answer(target)).toBe('answer 42');
  });
});

describe('--disable-libcare and --enable-libcare', () => {
  it('stop new patching for good, and bring it back, however often they are repeated', async () => {
    const [before, after] = [await world.start(), await world.start()];
    await host.kcarectl('--lib-update', ...only(before));
    for (const round of [1, 2]) {
      const off = await host.kcarectl('--disable-libcare', '--json');
      expect(off.exitCode, `round ${round}: ${off.stdout}`).toBe(0);
      expect(parsed(off.stdout)).toMatchObject({ enabled: false });
    }
    // What is patched stays so.
    expect(await world.answer(before)).toBe('answer 43');
    const refused = await host.kcarectl('--lib-update', '--json', ...only(after));
    expect(refused.exitCode).toBe(2);
    expect(parsed(refused.stdout)).toMatchObject({ error: { code: 'LIBCARE_DISABLED' } });
    expect(await host.kcarectl(...auto, ...only(after))).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(await world.answer(after)).toBe('answer 42');
    const info = parsed((await host.kcarectl('--lib-info', ...only(after))).stdout);
    expect(info).toMatchObject({
      result: [{ state: 'pending', reason: expect.stringContaining('turned off') as string }],
    });
    const job = join(host.root, 'etc/cron.d/libcare-cron');
    expect(existsSync(job)).toBe(false);
    let text: string | undefined;
    for (const round of [1, 2]) {
      const on = await host.kcarectl('--enable-libcare');
      expect(on.exitCode, `round ${round}: ${on.stdout}`).toBe(0);
      expect(on.stdout).toMatch(/LibCare is turned on\.\n$/);
      text ??= readFileSync(job, 'utf8');
      expect(readFileSync(job, 'utf8')).toBe(text);
    }
    await host.kcarectl('--lib-update', ...only(after));
    expect(await world.answer(after)).toBe('answer 43');
    expect((await host.kcarectl('--disable-libcare')).stdout).toMatch(/LibCare is turned off\.\n$/);
    expect((await host.kcarectl('--lib-unload', ...only(before, after))).exitCode).toBe(0);
  });

  it('do not take a damaged state for either', async () => {
    writeFileSync(join(host.root, 'etc/sysconfig/kcare/libcare.state'), 'LIBCARE_ENABLED=perhaps\n');
    const { stdout, exitCode } = await host.kcarectl('--lib-update', '--json', '--pid', `${process.pid}`);
    expect(exitCode).toBe(2);
    expect(parsed(stdout)).toMatchObject({ error: { code: 'CONFIG_INVALID' } });
  });
});

describe('--blacklist-test', () => {
  it('names the deciding line for processes and programs, by the exit status too', async () => {
    const [plain, excluded] = [await world.start(), await world.start('gdb')];
    const free = await host.kcarectl('--blacklist-test', `${plain.pid}`);
    expect(free.exitCode).toBe(0);
    expect(free.stdout).toMatch(/is not blacklisted by .*blacklists\/default\.\n$/);
    const bound = await host.kcarectl('--blacklist-test', `${excluded.pid}`);
    expect(bound.exitCode).toBe(2);
    expect(bound.stdout).toMatch(/is blacklisted by "filename:gdb" \(debugger\), line \d+ of .*default\.\n$/);
    const json = await host.kcarectl('--blacklist-test', '/nowhere/gdb', '--json');
    expect(json.exitCode).toBe(2);
    expect(parsed(json.stdout)).toMatchObject({
      executable: '/nowhere/gdb',
      isBlacklisted: true,
      rule: { text: 'filename:gdb', line: expect.any(Number) as number },
    });
    const override = join(host.root, 'var/cache/kcare/userspace/blacklist');
    mkdirSync(dirname(override), { recursive: true });
    writeFileSync(override, `# ours\npath:${world.compiled.program} # busy at night\n`);
    expect((await host.kcarectl('--blacklist-test', `${excluded.pid}`)).exitCode).toBe(0);
    const link = join(host.directory, 'link');
    symlinkSync(world.compiled.program, link);
    expect((await host.kcarectl('--blacklist-test', link)).stdout).toContain(
      `(busy at night), line 2 of ${override}.`,
    );
  });

  it('says when there is no such process, or the subject is neither', async () => {
    const program = await world.start();
    await program.end();
    expect((await host.kcarectl('--blacklist-test', `${program.pid}`)).exitCode).toBe(1);
    expect((await host.kcarectl('--blacklist-test', 'gdb')).exitCode).toBe(64);
  });
});
