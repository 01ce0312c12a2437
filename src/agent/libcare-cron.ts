// The periodic job that keeps libraries patched: an entry for cron, or a timer of systemd where there is no cron.
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { KcareError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';
import { readSafeFile, safeDirectory, writeAtomically } from '../base/safe-files.js';
import { isSystemdRunning, systemctl } from './systemd.js';

export type JobKind = 'cron' | 'systemd';

export interface CronJob {
  readonly isInstalled: boolean;
  readonly kind?: JobKind;
  readonly path?: string;
  /** As cron or systemd write it. */
  readonly schedule?: string;
  readonly command?: string;
}

export interface CronChange extends CronJob {
  readonly isChanged: boolean;
  /** What keeps the job from running. */
  readonly warnings: readonly string[];
}

const mark = '# Written by libcare-cron init; libcare-cron remove takes it away.';
const jitterSeconds = 600;
const plainPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

interface JobFiles {
  readonly cron: string;
  readonly timer: string;
  readonly service: string;
  /** The link by which systemd starts the timer at boot. */
  readonly wanted: string;
}

function jobFiles(root: string): JobFiles {
  const units = join(root, 'etc/systemd/system');
  return {
    cron: join(root, 'etc/cron.d/libcare-cron'),
    timer: join(units, 'libcare-cron.timer'),
    service: join(units, 'libcare-cron.service'),
    wanted: join(units, 'timers.target.wants/libcare-cron.timer'),
  };
}

/**
 * Writes the job; one that is there is left as it is, with what an administrator changed in it. `kind`: default cron
 * where it is installed, else systemd where that is. Throws FILE_FOREIGN, UNSAFE_MODE (R10), USAGE.
 */
export async function initCron(root: string, kind: JobKind = usualKind(root)): Promise<CronChange> {
  const files = jobFiles(root);
  const before = await showCron(root);
  const warnings = whyIdle(root, kind);
  if (before.isInstalled && before.kind === kind) return { ...before, isChanged: false, warnings };
  const main = kind === 'cron' ? files.cron : files.timer;
  await requireOurs(main);
  if (before.isInstalled) await removeCron(root);
  const { minute, hour } = phaseOf(root);
  const command = commandLine(root);
  if (kind === 'cron') {
    await writeJob(files.cron, cronText(`${minute} ${hour}-23/4 * * *`, command));
  } else {
    await requireOurs(files.service);
    await writeJob(files.service, serviceText(command));
    await writeJob(files.timer, timerText(`*-*-* ${two(hour)}/4:${two(minute)}:00`));
    mkdirSync(dirname(files.wanted), { recursive: true, mode: 0o755 });
    if (!existsSync(files.wanted)) symlinkSync('../libcare-cron.timer', files.wanted);
    if (isSystemdRunning(root)) {
      await systemctl('daemon-reload');
      await systemctl('start', 'libcare-cron.timer');
    }
  }
  return { ...(await showCron(root)), isChanged: true, warnings };
}

/** The job as it is on disk. Throws UNSAFE_MODE (R10). */
export async function showCron(root: string): Promise<CronJob> {
  const { cron, timer, service } = jobFiles(root);
  const entry = /^([^\s#]+ \S+ \S+ \S+ \S+) root (.*--lib-auto-update.*)$/m.exec(await readOurs(cron));
  if (entry) return { isInstalled: true, kind: 'cron', path: cron, ...named(entry[1], entry[2]) };
  const schedule = /^OnCalendar=(.*)$/m.exec(await readOurs(timer))?.[1];
  const command = /^ExecStart=(.*)$/m.exec(await readOurs(service))?.[1];
  if (schedule === undefined || command === undefined) return { isInstalled: false };
  return { isInstalled: true, kind: 'systemd', path: timer, ...named(schedule, command) };
}

/** The inverse of {@link initCron}; nothing to remove is no error. Throws UNSAFE_MODE (R10). */
export async function removeCron(root: string): Promise<CronChange> {
  const files = jobFiles(root);
  let isChanged = false;
  if (isSystemdRunning(root) && (await readOurs(files.timer)) !== '')
    await systemctl('stop', 'libcare-cron.timer');
  for (const path of [files.cron, files.timer, files.service]) {
    if ((await readOurs(path)) === '') continue;
    rmSync(path);
    isChanged = true;
    if (path === files.timer) rmSync(files.wanted, { force: true });
  }
  if (isChanged && isSystemdRunning(root)) await systemctl('daemon-reload');
  return { isInstalled: false, isChanged, warnings: [] };
}

const named = (schedule = '', command = ''): { schedule: string; command: string } => ({ schedule, command });

function cronText(schedule: string, command: string): string {
  const mail = process.env['KCARE_MAILTO'] ?? '';
  if (!/^[\w.+@,-]*$/.test(mail))
    throw new KcareError('USAGE', `KCARE_MAILTO is "${mail}", which is no list of mail addresses.`);
  const lines = [
    mark,
    '# Every four hours; mail comes only when something was done or went wrong. The times may be changed here.',
    'SHELL=/bin/sh',
    `PATH=${plainPath}`,
    ...(mail === '' ? [] : [`MAILTO=${mail}`]),
    `${schedule} root ${command} --jitter ${jitterSeconds}`,
  ];
  return `${lines.join('\n')}\n`;
}

function timerText(calendar: string): string {
  return `${mark}
[Unit]
Description=Periodic update of the patches in running processes
Documentation=man:libcare-cron(8)

[Timer]
OnCalendar=${calendar}
RandomizedDelaySec=${jitterSeconds}
Persistent=true

[Install]
WantedBy=timers.target
`;
}

/** Exit status 4: some processes were left as they were; that is no failure of the unit. */
function serviceText(command: string): string {
  return `${mark}
[Unit]
Description=Update of the patches in running processes
Documentation=man:kcarectl(8)
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=${command} --no-jitter
SuccessExitStatus=4
`;
}

/** An installed kcarectl finds its own root; one that runs from elsewhere is told it. */
function commandLine(root: string): string {
  const installed = '/usr/bin/kcarectl';
  const words = existsSync(join(root, installed))
    ? [installed]
    : [join(packageRoot(), 'bin/kcarectl'), ...(root === '/' ? [] : ['--root', root])];
  const odd = words.find((word) => !/^[\w./+@-]+$/.test(word));
  if (odd !== undefined) throw new KcareError('USAGE', `"${odd}" cannot stand in a job of cron.`);
  return [...words, '--lib-auto-update'].join(' ');
}

/** Spreads hosts over the four hours; a host always gets the same place. */
function phaseOf(root: string): { minute: number; hour: number } {
  const digest = createHash('sha256')
    .update(`libcare-cron ${machineName(root)}`)
    .digest();
  return { minute: digest.readUInt32BE(0) % 60, hour: digest.readUInt32BE(4) % 4 };
}

function machineName(root: string): string {
  try {
    return readFileSync(join(root, 'etc/machine-id'), 'utf8');
  } catch {
    return hostname();
  }
}

function usualKind(root: string): JobKind {
  return hasCron(root) || !hasSystemd(root) ? 'cron' : 'systemd';
}

function hasCron(root: string): boolean {
  return ['cron', 'crond', 'cronie'].some((name) => existsSync(join(root, 'usr/sbin', name)));
}

function hasSystemd(root: string): boolean {
  return existsSync(join(root, 'lib/systemd/systemd')) || existsSync(join(root, 'usr/lib/systemd/systemd'));
}

function whyIdle(root: string, kind: JobKind): string[] {
  if (kind === 'cron' && !hasCron(root))
    return ['There is no cron on this host: the job is written, but nothing runs it yet.'];
  if (kind === 'systemd' && !hasSystemd(root))
    return ['There is no systemd on this host: the timer is written, but nothing runs it yet.'];
  return [];
}

async function writeJob(path: string, text: string): Promise<void> {
  await safeDirectory(dirname(path));
  await writeAtomically(path, Buffer.from(text));
}

/** Text of a file that libcare-cron wrote; "" when there is none, or it is somebody else's. */
async function readOurs(path: string): Promise<string> {
  if (!existsSync(path)) return '';
  await safeDirectory(dirname(path));
  const text = (await readSafeFile(path)).toString('utf8');
  return text.startsWith(mark) ? text : '';
}

async function requireOurs(path: string): Promise<void> {
  const isThere = lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  if (!isThere || (await readOurs(path)) !== '') return;
  throw new KcareError('FILE_FOREIGN', `${path} was not written by libcare-cron; it is left as it is.`);
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}
