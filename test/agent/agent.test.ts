// The agent's files on a real disk: safe owners and modes, the log, the lock between real processes.
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Program } from '../../fixtures/support/program.js';
import { agentPaths, openAgent } from '../../src/agent/index.js';
import { openBlacklist } from '../../src/agent/agent.js';
import { withLock } from '../../src/agent/lock.js';
import { packageRoot } from '../../src/base/package-root.js';

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;
const directories: string[] = [];
let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kcare-agent-'));
  directories.push(root);
});
afterAll(() => directories.forEach((directory) => rmSync(directory, { recursive: true, force: true })));

function write(path: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, text);
  chmodSync(path, mode);
}

describe('files of the agent', () => {
  it('need not be there', async () => {
    const agent = await openAgent(root);
    expect(agent.warnings).toEqual([]);
    expect(agent.config.patchServer).toBeUndefined();
    expect(existsSync(dirname(agent.paths.config))).toBe(false);
  });

  it('lie below the root, which must be absolute', () => {
    const { config, keys, cache, log, lock } = agentPaths(root);
    for (const path of [config, keys, cache, log, lock]) expect(path.startsWith(`${root}/`)).toBe(true);
    expect(agentPaths('/').config).toBe('/etc/sysconfig/kcare/kcare.conf');
    expect(() => agentPaths('here')).toThrow(withCode('USAGE'));
  });

  it('are read, and warnings name file and line', async () => {
    const { config } = agentPaths(root);
    write(config, 'PREFIX=test\nNONSENSE=1\n');
    const agent = await openAgent(root);
    expect(agent.config.prefix).toBe('test');
    expect(agent.warnings).toEqual([expect.stringContaining(`${config}, line 2: NONSENSE`)]);
  });

  it('name themselves when they are wrong', async () => {
    const { config } = agentPaths(root);
    write(config, 'PREFIX=a b\n');
    await expect(openAgent(root)).rejects.toThrow(`${config}: Line 1`);
  });

  it.each(['config', 'blacklist'] as const)(
    'are refused when others can change them: %s (R10)',
    async (kind) => {
      const paths = agentPaths(root);
      const file = kind === 'config' ? paths.config : (paths.blacklists[0] ?? '');
      const open = (): Promise<unknown> => (kind === 'config' ? openAgent(root) : openBlacklist(paths));
      write(file, '', 0o644);
      await open();
      chmodSync(file, 0o664);
      await expect(open()).rejects.toThrow(withCode('UNSAFE_MODE'));
      chmodSync(file, 0o646);
      await expect(open()).rejects.toThrow(withCode('UNSAFE_MODE'));
      chmodSync(file, 0o644);
      chownSync(file, 65534, 65534);
      await expect(open()).rejects.toThrow(withCode('UNSAFE_MODE'));
      chownSync(file, 0, 0);
      await open();
      chmodSync(dirname(file), 0o777);
      await expect(open()).rejects.toThrow(withCode('UNSAFE_MODE'));
      chmodSync(dirname(file), 0o755);
      chownSync(dirname(file), 65534, 65534);
      await expect(open()).rejects.toThrow(withCode('UNSAFE_MODE'));
      chownSync(dirname(file), 0, 0);
      rmSync(file);
      write(`${file}.elsewhere`, '');
      symlinkSync(`${file}.elsewhere`, file);
      await expect(open()).rejects.toThrow(withCode('UNSAFE_MODE'));
    },
  );
});

describe('the blacklist', () => {
  it('is the administrator’s, else the installed one, else the one of the package', async () => {
    const paths = agentPaths(root);
    const [override = '', installed = '', shipped = ''] = paths.blacklists;
    expect((await openBlacklist(paths)).blacklist.match('/usr/bin/gdb')?.file).toBe(shipped);
    write(installed, 'filename:installed\nnonsense\n');
    const { blacklist, warnings } = await openBlacklist(paths);
    expect(blacklist.match('/usr/bin/gdb')).toBeUndefined();
    expect(blacklist.match('/usr/bin/installed')?.file).toBe(installed);
    expect(warnings).toEqual([expect.stringContaining(`${installed}, line 2: `)]);
    write(override, 'filename:own\n');
    const own = (await openBlacklist(paths)).blacklist;
    expect(own.match('/usr/bin/own')).toMatchObject({ file: override, line: 1 });
    expect(own.match('/usr/bin/installed')).toBeUndefined();
  });
});

describe('the log', () => {
  it('is JSON lines that only the owner can read', async () => {
    const { logger, paths } = await openAgent(root);
    logger.info({ target: 7 }, 'first');
    logger.info('second\nline');
    const lines = readFileSync(paths.log, 'utf8').trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { target: 7, msg: 'first' },
      { msg: 'second\nline' },
    ]);
    expect(statSync(paths.log).mode & 0o777).toBe(0o600);
  });

  it('that cannot be written is a warning, never an end', async () => {
    const { log } = agentPaths(root);
    mkdirSync(log, { recursive: true });
    const agent = await openAgent(root);
    expect(agent.logProblems()).toEqual([expect.stringContaining(log)]);
    agent.logger.info('lost');
  });

  it('on a full disk does no harm, and is known', async () => {
    const { log } = agentPaths(root);
    mkdirSync(dirname(log), { recursive: true });
    symlinkSync('/dev/full', log);
    const { logger, logProblems } = await openAgent(root);
    expect(logProblems()).toEqual([]);
    for (let line = 0; line < 100; line++) logger.info('x'.repeat(1000));
    expect(logProblems()).toEqual([expect.stringMatching(/cannot be written: ENOSPC/)]);
  });
});

describe('the lock', () => {
  const holders: Program[] = [];
  afterEach(() => Promise.all(holders.splice(0).map((holder) => holder.end())));

  /** A process of its own that holds the lock until its input ends. */
  async function startHolder(lock: string): Promise<Program> {
    const module = pathToFileURL(join(packageRoot(), 'dist/src/agent/lock.js')).href;
    const script = `
      import { withLock } from ${JSON.stringify(module)};
      await withLock(${JSON.stringify(lock)}, { command: 'the holder', waitMs: 0 }, () => {
        console.log('held');
        return new Promise((resolve) => process.stdin.once('data', resolve));
      });
      console.log('released');
      process.exit(0);`;
    const holder = await Program.start(process.execPath, ['--input-type=module', '-e', script]);
    holders.push(holder);
    await holder.waitForLine(/^held/);
    return holder;
  }

  it('makes the second of two processes wait, and tells it who holds it', async () => {
    const { lock } = agentPaths(root);
    const holder = await startHolder(lock);
    let entered = false;
    const attempt = withLock(lock, { command: 'second', waitMs: 300 }, () =>
      Promise.resolve((entered = true)),
    );
    await expect(attempt).rejects.toThrow(
      expect.objectContaining({
        code: 'LOCK_HELD',
        message: expect.stringMatching(new RegExp(`process ${holder.pid} \\(the holder, since `)) as string,
      }) as Error,
    );
    expect(entered).toBe(false);
    const patient = withLock(lock, { command: 'third', waitMs: 30_000 }, () =>
      Promise.resolve((entered = true)),
    );
    await sleep(300);
    expect(entered).toBe(false);
    holder.writeLine('go');
    await patient;
    expect(entered).toBe(true);
  });

  it('is kept by a holder that is stopped, and given back when it is killed', async () => {
    const { lock } = agentPaths(root);
    const holder = await startHolder(lock);
    process.kill(holder.pid, 'SIGSTOP');
    const attempt = withLock(lock, { command: 'early', waitMs: 300 }, () => Promise.resolve('entered'));
    await expect(attempt).rejects.toThrow('holds the lock');
    process.kill(holder.pid, 'SIGKILL');
    expect(await withLock(lock, { command: 'next', waitMs: 30_000 }, () => Promise.resolve('entered'))).toBe(
      'entered',
    );
  });

  it('is released when the work fails', async () => {
    const { lock } = agentPaths(root);
    await expect(
      withLock(lock, { command: 'a', waitMs: 0 }, () => Promise.reject(new Error('work'))),
    ).rejects.toThrow('work');
    expect(await withLock(lock, { command: 'b', waitMs: 0 }, () => Promise.resolve('entered'))).toBe(
      'entered',
    );
  });
});
