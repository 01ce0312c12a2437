// The installed service under a systemd of its own, as administrators meet it: running at once, killed, turned off and on.
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DebianRoot } from '../../fixtures/support/debian-root.js';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { Program } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';
import { until } from '../daemon/served-host.js';
import { AnswersWorld } from '../host/answers.js';

let directory: string;
let world: AnswersWorld;
let debian: DebianRoot;
let target: Program;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-service-'));
  world = new AnswersWorld();
  const patch = world.writePatchFile(world.patch(1, 43), 'level-1');
  const host = await LocalHost.create(join(directory, 'host'), [patch]);
  const packages = join(directory, 'packages');
  const make = (version: string, ...choice: string[]): Buffer => {
    const parameters = ['--output', packages, '--gzip', '1', '--package-version', version, ...choice];
    return execFileSync(process.execPath, [join(packageRoot(), 'scripts/package.mjs'), ...parameters]);
  };
  make('1.0');
  make('1.1', '--only', 'rpm');
  debian = await DebianRoot.boot(directory, (root) => {
    for (const name of readdirSync(packages)) copyFileSync(join(packages, name), join(root, 'root', name));
    mkdirSync(join(root, 'opt/answers'));
    for (const file of [world.compiled.program, world.compiled.library])
      copyFileSync(file, join(root, 'opt/answers', basename(file)));
  });
  await expectDone('dpkg', '-i', '/root/kernelcare_1.0_amd64.deb');
  cpSync(host.feedDirectory, debian.outside('srv/feed'), { recursive: true });
  await configure();
  const program = `/opt/answers/${basename(world.compiled.program)}`;
  target = await Program.start(...debian.inside([program], ['LD_LIBRARY_PATH=/opt/answers']));
  await target.waitForLine(/^ready/);
});
afterAll(async () => {
  await target.end();
  await debian.end();
  world.remove();
  rmSync(directory, { recursive: true, force: true });
});

/** Names the server and trusts its key. */
async function configure(): Promise<void> {
  writeFileSync(debian.outside('etc/sysconfig/kcare/kcare.conf'), 'PATCH_SERVER=/srv/feed\n');
  await expectDone('kcarectl', '--import-key', '/srv/feed/kcare-feed.asc');
}

const run = (...words: string[]): Promise<CommandResult> => debian.run(words);

async function expectDone(...words: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await run(...words);
  expect(exitCode, `${words.join(' ')}: ${stdout}${stderr}`).toBe(0);
  return stdout;
}

async function state(unit: string): Promise<Record<string, string>> {
  const names = 'ActiveState,SubState,UnitFileState,MainPID,NRestarts,Type,Result';
  const lines = await expectDone('systemctl', 'show', `--property=${names}`, unit);
  return Object.fromEntries(lines.split('\n').map((line) => line.split('=', 2))) as Record<string, string>;
}

const answer = (): Promise<string> => world.answer(target);
const failedUnits = (): Promise<string> => expectDone('systemctl', '--failed', '--plain', '--no-legend');
const status = async (): Promise<Record<string, unknown>> =>
  JSON.parse(await expectDone('libcare-client', 'status')) as Record<string, unknown>;

/** Nothing of the service is left, and no unit has failed. */
async function expectGone(): Promise<void> {
  const units = ['systemctl', 'list-units', '--all', '--plain', '--no-legend', 'libcare*', 'kcare*'];
  expect(await expectDone(...units)).toBe('');
  expect(await expectDone('find', '/etc/systemd', '/run', '-name', '*libcare*')).toBe('');
  expect(await failedUnits()).toBe('');
}

/** Of the target, by the server: level 1. */
async function expectPatched(): Promise<void> {
  const lines = (await expectDone('libcare-client', 'info', '-j')).trim().split('\n');
  expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
    expect.objectContaining({ 'libanswers.so': { buildid: world.patch(1, 43).buildId, patchlvl: 1 } }),
  ]);
}

it('is enabled and runs from its installation on, and has nothing to do or to say', async () => {
  for (const unit of ['libcare.socket', 'libcare.service'])
    expect(await state(unit)).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  expect(await state('kcare.service')).toMatchObject({ UnitFileState: 'enabled' });
  expect(JSON.parse(await expectDone('libcare-cron', 'show', '--json'))).toEqual({ isInstalled: false });
  const untouched = expect.stringMatching(/^No update of all processes/) as string;
  const waiting = { isActivated: true, jobs: 0, watch: { state: 'off', reason: untouched } };
  await until(async () => (await status())['jobs'] === 0);
  const now = await status();
  expect(now).toMatchObject(waiting);
  expect(await state('libcare.service')).toMatchObject({
    Type: 'notify',
    MainPID: String(now['pid']),
    NRestarts: '0',
  });
  expect(await failedUnits()).toBe('');
  const lines = (await expectDone('cat', '/var/log/kcarectl.log')).trim().split('\n');
  const complaints = lines.filter((line) => (JSON.parse(line) as { level: number }).level > 30);
  expect(complaints).toEqual([]);
});

it('patches a running process, and `service libcare status` is content', async () => {
  expect(await answer()).toBe('answer 42');
  const before = Number((await status())['requests']);
  expect(await expectDone('kcarectl', '--lib-update', '--wait', '60')).toContain(
    'Userspace patches are applied.',
  );
  expect(Number((await status())['requests'])).toBeGreaterThan(before + 1);
  expect(await answer()).toBe('answer 43');
  await expectPatched();
  expect(await expectDone('service', 'libcare', 'status')).toContain('active (running)');
});

it('is back after it was killed, and after it was stopped for the next client', async () => {
  const { MainPID } = await state('libcare.service');
  await expectDone('sh', '-c', `kill -9 ${MainPID}`);
  await expectPatched();
  expect((await state('libcare.service'))['MainPID']).not.toBe(MainPID);
  await expectDone('systemctl', 'stop', 'libcare.service');
  expect(await state('libcare.service')).toMatchObject({ ActiveState: 'inactive', Result: 'success' });
  await expectPatched();
  await expectDone('libcare-client', 'stop');
  await expectDone('sh', '-c', 'while systemctl -q is-active libcare.service; do sleep 0.1; done');
  expect(await state('libcare.service')).toMatchObject({ ActiveState: 'inactive', Result: 'success' });
  await expectPatched();
});

it('comes back by the recipe for a service that is stuck, line by line', async () => {
  await expectDone('systemctl', 'stop', 'libcare.socket');
  await expectDone('systemctl', 'stop', 'libcare.service');
  await expectDone('kcarectl', '--disable-libcare');
  await expectDone('kcarectl', '--enable-libcare');
  await expectDone('libcare-cron', 'init');
  await expectDone('systemctl', 'start', 'libcare.socket');
  await expectDone('systemctl', 'start', 'libcare.service');
  for (const unit of ['libcare.socket', 'libcare.service'])
    expect(await state(unit)).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  await expectPatched();
});

it('is turned off and on, again and again', async () => {
  for (const time of ['first', 'second']) {
    await expectDone('kcarectl', '--disable-libcare');
    for (const unit of ['libcare.socket', 'libcare.service'])
      expect(await state(unit), time).toMatchObject({ ActiveState: 'inactive', UnitFileState: 'disabled' });
  }
  const refused = await run('kcarectl', '--lib-update');
  expect([refused.exitCode, refused.stderr]).toEqual([2, expect.stringContaining('turned off')]);
  expect(await run('libcare-client', 'status')).toMatchObject({ exitCode: 1 });
  // Off is not unpatched.
  expect(await answer()).toBe('answer 43');
  for (const time of ['first', 'second']) {
    const { steps } = JSON.parse(await expectDone('kcarectl', '--enable-libcare', '--json')) as {
      steps: readonly { result: string }[];
    };
    expect(steps.filter(({ result }) => result !== 'done')).toEqual([]);
    for (const unit of ['libcare.socket', 'libcare.service'])
      expect(await state(unit), time).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  }
  await expectPatched();
});

it('has a timer where there is no cron, whose job runs', async () => {
  const job = JSON.parse(await expectDone('libcare-cron', 'show', '--json')) as object;
  expect(job).toMatchObject({ isInstalled: true, kind: 'systemd' });
  expect(await state('libcare-cron.timer')).toMatchObject({
    ActiveState: 'active',
    UnitFileState: 'enabled',
  });
  const timers = await expectDone('systemctl', 'list-timers', '--no-legend', 'libcare-cron.timer');
  expect(timers).toContain('libcare-cron.service');
  await expectDone('kcarectl', '--lib-unload', '--wait', '60');
  expect(await answer()).toBe('answer 42');
  await expectDone('systemctl', 'start', 'libcare-cron.service');
  expect(await answer()).toBe('answer 43');
  expect(await state('libcare-cron.service')).toMatchObject({ Result: 'success' });
  await expectDone('libcare-cron', 'remove');
  expect(await state('libcare-cron.timer')).toMatchObject({ ActiveState: 'inactive', UnitFileState: '' });
  expect(await failedUnits()).toBe('');
});

it('stays as the administrator left it through upgrade, removal and installation', async () => {
  await expectDone('systemctl', 'disable', '--now', 'libcare.service');
  await expectDone('systemctl', 'mask', 'kcare.service');
  const expectLeft = async (): Promise<void> => {
    expect(await state('libcare.service')).toMatchObject({
      ActiveState: 'inactive',
      UnitFileState: 'disabled',
    });
    expect(await state('libcare.socket')).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
    expect(await state('kcare.service')).toMatchObject({ UnitFileState: 'masked' });
  };
  await expectDone('dpkg', '-i', '/root/kernelcare_1.0_amd64.deb');
  await expectLeft();
  await expectDone('dpkg', '-r', 'kernelcare');
  await expectDone('dpkg', '-i', '/root/kernelcare_1.0_amd64.deb');
  await expectLeft();
  await expectDone('systemctl', 'unmask', 'kcare.service');
  await expectDone('systemctl', 'enable', 'kcare.service');
  await expectDone('systemctl', 'enable', '--now', 'libcare.service');
});

it('is restarted by an upgrade, and taken away with the package', async () => {
  const { MainPID } = await state('libcare.service');
  await expectDone('dpkg', '-i', '/root/kernelcare_1.0_amd64.deb');
  const after = await state('libcare.service');
  expect(after).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  expect(after['MainPID']).not.toBe(MainPID);
  await expectPatched();
  await expectDone('env', 'KCARE_UNPATCH=1', 'dpkg', '-r', 'kernelcare');
  expect(await answer()).toBe('answer 42');
  await expectGone();
});

it('is installed, upgraded and taken away by rpm as well', async () => {
  await expectDone('dpkg', '-P', 'kernelcare');
  // Debian's rpm knows nothing of the packages that dpkg has installed.
  const rpm = (...words: string[]): Promise<string> =>
    expectDone('env', 'KCARE_UNPATCH=1', 'rpm', '--nodeps', ...words);
  await rpm('-i', '/root/kernelcare-1.0-1.x86_64.rpm');
  await configure();
  for (const unit of ['libcare.socket', 'libcare.service'])
    expect(await state(unit)).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  expect(await state('kcare.service')).toMatchObject({ UnitFileState: 'enabled' });
  await expectDone('kcarectl', '--lib-update', '--wait', '60');
  await expectPatched();
  const { MainPID } = await state('libcare.service');
  await rpm('-U', '/root/kernelcare-1.1-1.x86_64.rpm');
  expect(await answer()).toBe('answer 43');
  expect((await status())['version']).toBe('1.1');
  expect((await state('libcare.service'))['MainPID']).not.toBe(MainPID);
  expect(await state('libcare.socket')).toMatchObject({ ActiveState: 'active', UnitFileState: 'enabled' });
  await expectDone('kcarectl', '--disable-libcare');
  await rpm('-e', 'kernelcare');
  expect(await answer()).toBe('answer 42');
  await expectGone();
  await rpm('-i', '/root/kernelcare-1.1-1.x86_64.rpm');
  for (const unit of ['libcare.socket', 'libcare.service'])
    expect(await state(unit)).toMatchObject({ ActiveState: 'inactive', UnitFileState: 'disabled' });
  expect(await state('kcare.service')).toMatchObject({ UnitFileState: 'enabled' });
  await rpm('-e', 'kernelcare');
  await expectGone();
});
