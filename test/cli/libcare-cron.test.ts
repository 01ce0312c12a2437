// libcare-cron as an administrator runs it, on roots of its own; timers are checked by systemd itself.
import { execFile, execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeEach, expect, it, test } from 'vitest';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import { packageRoot } from '../../src/base/package-root.js';

let root: string;
const roots: string[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kcare-cron-'));
  chmodSync(root, 0o755);
  roots.push(root);
  write('etc/machine-id', '0123456789abcdef0123456789abcdef\n');
});
afterAll(() => roots.forEach((path) => rmSync(path, { recursive: true, force: true })));

function write(path: string, text: string, mode = 0o644): string {
  const whole = join(root, path);
  mkdirSync(dirname(whole), { recursive: true, mode: 0o755 });
  writeFileSync(whole, text);
  chmodSync(whole, mode);
  return whole;
}

function cron(
  parameters: readonly string[],
  environment: Record<string, string> = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const command = join(packageRoot(), 'bin/libcare-cron');
    const env = { ...process.env, ...environment };
    execFile(command, ['--root', root, ...parameters], { env }, (error, stdout, stderr) => {
      const exitCode = error ? error.code : 0;
      if (typeof exitCode === 'number') resolve({ exitCode, stdout, stderr });
      else reject(error ?? new Error('killed'));
    });
  });
}

const parsed = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>;
const entry = (): string => join(root, 'etc/cron.d/libcare-cron');

it('is off until init, which may be repeated, and is shown and removed', async () => {
  write('usr/sbin/cron', '', 0o755);
  expect((await cron(['show'])).stdout).toBe('There is no job; libcare-cron init writes it.\n');
  expect(parsed((await cron(['show', '--json'])).stdout)).toEqual({ isInstalled: false });
  const first = await cron(['init']);
  expect(first).toMatchObject({ exitCode: 0, stderr: '' });
  expect(first.stdout).toMatch(/^The job is written\.\nfile: /);
  const text = readFileSync(entry(), 'utf8');
  expect(statSync(entry()).mode & 0o777).toBe(0o644);
  // Minute, and every fourth hour from one of the first four on.
  expect(text).toMatch(
    /^[1-5]?\d [0-3]-23\/4 \* \* \* root \S+\/bin\/kcarectl --root \S+ --lib-auto-update --jitter 600$/m,
  );
  const second = await cron(['init', '--json']);
  expect(parsed(second.stdout)).toMatchObject({
    isChanged: false,
    isInstalled: true,
    kind: 'cron',
    path: entry(),
  });
  expect(readFileSync(entry(), 'utf8')).toBe(text);
  expect((await cron(['show'])).stdout).toMatch(/^file: .*\ntimes: .*\ncommand: .*--lib-auto-update/);
  expect((await cron(['remove'])).stdout).toBe('The job is removed.\n');
  expect(existsSync(entry())).toBe(false);
  expect(await cron(['remove'])).toMatchObject({ exitCode: 0, stdout: 'There is no job.\n' });
  // A host always gets the same place in the four hours.
  await cron(['init']);
  expect(readFileSync(entry(), 'utf8')).toBe(text);
});

it('keeps times that were changed by hand, and mends a job that is damaged', async () => {
  await cron(['init']);
  const changed = readFileSync(entry(), 'utf8').replace(/^\S+ \S+-23\/4/m, '7 3');
  writeFileSync(entry(), changed);
  expect(parsed((await cron(['init', '--json'])).stdout)).toMatchObject({ schedule: '7 3 * * *' });
  expect(readFileSync(entry(), 'utf8')).toBe(changed);
  writeFileSync(entry(), `${changed.split('\n')[0] ?? ''}\n`);
  expect(parsed((await cron(['init', '--json'])).stdout)).toMatchObject({ isChanged: true });
  expect(readFileSync(entry(), 'utf8')).toContain('--lib-auto-update');
});

it('runs the installed kcarectl where there is one, and mails to whom KCARE_MAILTO says', async () => {
  write('usr/bin/kcarectl', '', 0o755);
  await cron(['init'], { KCARE_MAILTO: 'admin@example.org' });
  const text = readFileSync(entry(), 'utf8');
  expect(text).toContain(' root /usr/bin/kcarectl --lib-auto-update --jitter 600\n');
  expect(text).toContain('MAILTO=admin@example.org\n');
  await cron(['remove']);
  expect((await cron(['init'], { KCARE_MAILTO: 'a\n* * * * * root id' })).exitCode).toBe(64);
  expect(existsSync(entry())).toBe(false);
});

it('writes a timer where there is no cron, which systemd accepts; one kind replaces the other', async () => {
  write('usr/lib/systemd/systemd', '', 0o755);
  const { stdout } = await cron(['init', '--json']);
  const units = join(root, 'etc/systemd/system');
  expect(parsed(stdout)).toMatchObject({
    isChanged: true,
    kind: 'systemd',
    path: join(units, 'libcare-cron.timer'),
  });
  expect(readFileSync(join(units, 'timers.target.wants/libcare-cron.timer'), 'utf8')).toContain('[Timer]');
  const verify = [
    'verify',
    '--man=no',
    join(units, 'libcare-cron.timer'),
    join(units, 'libcare-cron.service'),
  ];
  const said = execFileSync('systemd-analyze', verify, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  expect(said).toBe('');
  const calendar = String(parsed((await cron(['show', '--json'])).stdout)['schedule']);
  const times = execFileSync('systemd-analyze', ['calendar', '--iterations=6', calendar], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
  });
  const next = [...times.matchAll(/(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC/g)].map(([, time = '']) =>
    Date.parse(`${time}Z`),
  );
  expect(next).toHaveLength(6);
  expect(next.slice(1).map((time, index) => time - (next[index] ?? 0))).toEqual(Array(5).fill(4 * 3_600_000));
  expect(parsed((await cron(['init', '--with', 'cron', '--json'])).stdout)).toMatchObject({ kind: 'cron' });
  for (const name of ['libcare-cron.timer', 'libcare-cron.service', 'timers.target.wants/libcare-cron.timer'])
    expect(existsSync(join(units, name)), name).toBe(false);
});

it('leaves files of others alone, and unsafe ones unread (R10)', async () => {
  const foreign = write('etc/cron.d/libcare-cron', '* * * * * root true\n');
  const refused = await cron(['init', '--json']);
  expect(refused.exitCode).toBe(2);
  expect(parsed(refused.stdout)).toMatchObject({ error: { code: 'FILE_FOREIGN' } });
  expect((await cron(['remove'])).stdout).toBe('There is no job.\n');
  expect(readFileSync(foreign, 'utf8')).toBe('* * * * * root true\n');
  chmodSync(foreign, 0o666);
  expect((await cron(['init'])).exitCode).toBe(2);
});

test.each([[[]], [['start']], [['show', '--with', 'cron']], [['init', '--with', 'at']]])(
  '%j is answered with exit status 64',
  async (parameters) => {
    const { exitCode, stdout } = await cron(parameters);
    expect([exitCode, stdout]).toEqual([64, '']);
  },
);

it('explains itself as a manual page of 80 columns', async () => {
  const { exitCode, stdout } = await cron(['--help']);
  expect(exitCode).toBe(0);
  for (const title of ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXIT STATUS', 'EXAMPLES'])
    expect(stdout).toMatch(new RegExp(`^${title}$`, 'm'));
  for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
});
