// The audit rule under the real auditd: ptrace calls of kcare are not logged, those of others are.
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runKcarectl } from '../../fixtures/support/kcarectl.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { Program } from '../../fixtures/support/program.js';
import { auditRules, packagedProgram } from '../../src/agent/index.js';
import { KcareError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/package-root.js';
import { AnswersWorld } from '../host/answers.js';

const testKey = 'ptrace-test';
const debuggerProgram = '/usr/bin/gdb';
let world: AnswersWorld;
let directory: string;

beforeAll(() => {
  world = new AnswersWorld();
  directory = mkdtempSync(join(tmpdir(), 'kcare-audit-'));
});
afterAll(async () => {
  await world.end();
  world.remove();
  rmSync(directory, { recursive: true, force: true });
});

const auditctl = (...parameters: string[]): string =>
  execFileSync('auditctl', parameters, { encoding: 'utf8' });

function load(name: string, rules: string): void {
  const file = join(directory, name);
  writeFileSync(file, rules, { mode: 0o640 });
  auditctl('-R', file);
}

interface Auditd {
  /** Records of ptrace calls. */
  readonly records: () => string[];
  readonly end: () => Promise<void>;
}

/** The auditd of this host where one runs, else one with a log of its own for the time of a test. */
async function startAuditd(): Promise<Auditd> {
  const isRunning = !/^pid 0$/m.test(auditctl('-s'));
  const place = join(directory, 'auditd');
  const log = isRunning ? '/var/log/audit/audit.log' : join(place, 'audit.log');
  const daemon = isRunning ? undefined : await startOwnAuditd(place, log);
  return {
    // 101: ptrace on x86-64.
    records: () =>
      readFileSync(log, 'utf8')
        .split('\n')
        .filter((line) => line.startsWith('type=SYSCALL') && line.includes('syscall=101 ')),
    end: async () => {
      await daemon?.end();
      for (const key of ['kcare', testKey]) spawnSync('auditctl', ['-D', '-k', key]);
      if (daemon) auditctl('-e', '0');
    },
  };
}

async function startOwnAuditd(place: string, log: string): Promise<Program> {
  mkdirSync(place, { mode: 0o750 });
  const ignored = ['max_log_file', 'space_left', 'admin_space_left', 'disk_full', 'disk_error'];
  const settings = [
    ...['local_events = yes', 'write_logs = yes', `log_file = ${log}`, 'log_format = RAW'],
    ...['flush = INCREMENTAL', 'freq = 1', 'max_log_file = 50', 'space_left = 2', 'admin_space_left = 1'],
    ...ignored.map((name) => `${name}_action = ignore`),
  ];
  writeFileSync(join(place, 'auditd.conf'), `${settings.join('\n')}\n`, { mode: 0o640 });
  const daemon = await Program.start('auditd', ['-n', '-s', 'enable', '-c', place]);
  await expect.poll(() => auditctl('-s')).toMatch(/^enabled 1$/m);
  await expect.poll(() => auditctl('-s')).toMatch(/^pid [1-9]/m);
  return daemon;
}

it('is the file of the package, and what kcarectl prints names the program that runs it', async () => {
  const shipped = readFileSync(join(packageRoot(), 'packaging/audit/kernelcare.rules'), 'utf8');
  expect(shipped).toBe(auditRules(packagedProgram));
  expect(shipped.split('\n').filter((line) => line !== '' && !line.startsWith('#'))).toHaveLength(1);
  const { stdout, exitCode } = await runKcarectl('/proc/nonexistent', ['--audit-rules']);
  expect(exitCode).toBe(0);
  expect(stdout).toBe(auditRules());
  for (const path of ['node', '/a b', '/a\nb', '']) expect(() => auditRules(path)).toThrow(KcareError);
});

it('keeps the ptrace calls of kcare out of the log, and leaves those of a debugger in', async () => {
  const host = await LocalHost.create(join(directory, 'host'), [
    world.writePatchFile(world.patch(1, 43), 'level-1'),
  ]);
  const node = join(directory, 'node');
  copyFileSync(process.execPath, node);
  const target = await world.start();
  const kcarectl = (action: string): Promise<void> =>
    new Promise((done, fail) => {
      const command = join(packageRoot(), 'bin/kcarectl');
      execFile(node, [command, '--root', host.root, action, '--pid', `${target.pid}`], (error) =>
        error ? fail(new Error(error.message)) : done(),
      );
    });
  const auditd = await startAuditd();
  const by = (program: string): number =>
    auditd.records().filter((line) => line.includes(`exe="${program}"`)).length;
  /** Records are in order: with those of the debugger there, earlier ones are, too. */
  const untilDebuggerIsLogged = async (): Promise<void> => {
    const before = by(debuggerProgram);
    execFileSync('gdb', ['-p', `${target.pid}`, '-batch', '-ex', 'detach'], { stdio: 'ignore' });
    await expect.poll(() => by(debuggerProgram)).toBeGreaterThan(before);
  };
  try {
    const logged = [node, debuggerProgram].map(
      (exe) => `-a always,exit -F arch=b64 -S ptrace -F exe=${exe} -F key=${testKey}\n`,
    );
    load('logging.rules', logged.join(''));
    await kcarectl('--lib-update');
    expect(await world.answer(target)).toBe('answer 43');
    await untilDebuggerIsLogged();
    const before = by(node);
    // Without the rule they are logged: the test can see them.
    expect(before).toBeGreaterThan(0);
    load('kernelcare.rules', auditRules(node));
    const listed = auditctl('-l').split('\n');
    expect(listed[0]).toBe(`-a never,exit -F arch=b64 -S ptrace -F exe=${node} -F euid=0 -F key=kcare`);
    await kcarectl('--lib-unload');
    expect(await world.answer(target)).toBe('answer 42');
    await untilDebuggerIsLogged();
    expect(by(node)).toBe(before);
    auditctl('-D', '-k', 'kcare');
    await kcarectl('--lib-update');
    await expect.poll(() => by(node)).toBeGreaterThan(before);
  } finally {
    await auditd.end();
  }
});
