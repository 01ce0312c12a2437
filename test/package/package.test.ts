// The packages in a real Debian system without compiler and Node.js, and in an empty root of rpm.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DebianRoot } from '../../fixtures/support/debian-root.js';
import { Program } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';
import { publish } from '../../src/feed/index.js';
import { startServer, type RunningServer } from '../../src/server/index.js';
import { AnswersWorld } from '../host/answers.js';

const conffile = '/etc/sysconfig/kcare/kcare.conf';
let directory: string;
let world: AnswersWorld;
let debian: DebianRoot;
let server: RunningServer;
let target: Program;

/** Makes packages of a version; returns the paths in the order of `kinds`. */
function make(place: string, version: string, only?: 'deb' | 'rpm'): string[] {
  const script = join(packageRoot(), 'scripts/package.mjs');
  const choice = only ? ['--only', only] : [];
  const parameters = ['--output', join(directory, place), '--gzip', '1', '--package-version', version];
  return execFileSync(process.execPath, [script, ...parameters, ...choice], { encoding: 'utf8' })
    .trim()
    .split('\n');
}

async function install(deb: string): Promise<void> {
  copyFileSync(deb, debian.outside(`root/${basename(deb)}`));
  const { exitCode, stdout, stderr } = await debian.run(['dpkg', '-i', `/root/${basename(deb)}`]);
  expect(exitCode, `${stdout}${stderr}`).toBe(0);
}

const answer = async (): Promise<string> => await world.answer(target);
let first: string[];
let second: string[];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-packages-'));
  world = new AnswersWorld();
  // One right after the other: the sources must not change in between.
  first = make('first', '1.0');
  second = make('second', '1.0');
  const feedDirectory = join(directory, 'feed');
  const files = [world.writePatchFile(world.patch(1, 43), 'level-1')];
  await publish({ feedDirectory, keyDirectory: join(directory, 'keys'), files, createKeys: true });
  server = await startServer({ feedDirectory, host: '127.0.0.1', port: 0 });
  debian = await DebianRoot.start(directory);
  const place = debian.outside('opt/answers');
  mkdirSync(place, { recursive: true });
  for (const file of [world.compiled.program, world.compiled.library]) {
    copyFileSync(file, join(place, basename(file)));
  }
  const [command, parameters] = debian.inside(
    [`/opt/answers/${basename(world.compiled.program)}`],
    ['LD_LIBRARY_PATH=/opt/answers'],
  );
  target = await Program.start(command, parameters);
  await target.waitForLine(/^ready/);
});

afterAll(async () => {
  await target.end();
  await debian.end();
  await server.close();
  world.remove();
  rmSync(directory, { recursive: true, force: true });
});

it('the same sources give the same bytes', () => {
  expect(second.map((file) => basename(file))).toEqual([
    'kernelcare_1.0_amd64.deb',
    'kernelcare-1.0-1.x86_64.rpm',
  ]);
  second.forEach((file, index) => {
    expect(readFileSync(file).equals(readFileSync(first[index] ?? '')), file).toBe(true);
  });
});

it('installs where there is no Node.js and no compiler, and patches from a server', async () => {
  const tools = await debian.run(['sh', '-c', 'command -v node nodejs cc gcc g++ make npm']);
  expect(tools.stdout).toBe('');
  await install(first[0] ?? '');
  expect(await debian.run(['kcarectl', '--version'])).toEqual({ exitCode: 0, stdout: '1.0\n', stderr: '' });
  for (const name of [
    'kcare-check',
    'kcare-uchecker',
    'kcare-uname',
    'libcare-client',
    'libcare-cron',
    'libcare-server',
  ]) {
    const { exitCode, stdout } = await debian.run([name, '--help']);
    expect([name, exitCode]).toEqual([name, 0]);
    expect(stdout).toMatch(/^NAME/);
  }
  const configuration = debian.outside(conffile);
  writeFileSync(configuration, `${readFileSync(configuration, 'utf8')}PATCH_SERVER=${server.url}\n`);
  copyFileSync(join(directory, 'feed/kcare-feed.asc'), debian.outside('root/kcare-feed.asc'));
  expect(await debian.run(['kcarectl', '--import-key', '/root/kcare-feed.asc'])).toMatchObject({
    exitCode: 0,
  });
  expect(await answer()).toBe('answer 42');
  const { exitCode, stdout, stderr } = await debian.run(['kcarectl', '--lib-update', '--wait', '60']);
  expect(exitCode, `${stdout}${stderr}`).toBe(0);
  expect(await answer()).toBe('answer 43');
});

it('is upgraded in place: processes stay patched, a changed configuration is kept', async () => {
  const [deb = ''] = make('newer', '1.1', 'deb');
  await install(deb);
  expect(await debian.run(['kcarectl', '--version'])).toMatchObject({ stdout: '1.1\n' });
  expect(await answer()).toBe('answer 43');
  const configuration = readFileSync(debian.outside(conffile), 'utf8');
  expect(configuration).toContain(`PATCH_SERVER=${server.url}`);
  const { stdout } = await debian.run(['kcarectl', '--lib-info']);
  expect(JSON.parse(stdout)).toMatchObject({ states: { patched: 1 } });
});

it('is removed without unpatching unless that is asked for; purging leaves nothing', async () => {
  const removed = await debian.run(['dpkg', '-r', 'kernelcare']);
  expect(removed).toMatchObject({ exitCode: 0 });
  expect(removed.stdout).toContain('stay patched');
  expect(await answer()).toBe('answer 43');
  await install(join(directory, 'newer/kernelcare_1.1_amd64.deb'));
  const unpatched = await debian.run(['dpkg', '-r', 'kernelcare'], ['KCARE_UNPATCH=1']);
  expect(unpatched.exitCode, `${unpatched.stdout}${unpatched.stderr}`).toBe(0);
  expect(await answer()).toBe('answer 42');
  expect(await debian.run(['dpkg', '-P', 'kernelcare'])).toMatchObject({ exitCode: 0 });
  const left = await debian.run(['sh', '-c', 'find / -xdev -path "*kcare*" -o -xdev -path "*libcare*"']);
  const known = /^\/(proc|root)\//;
  expect(left.stdout.split('\n').filter((line) => line !== '' && !known.test(line))).toEqual([]);
});

it('is installed by the script from a server, if the signature and the sums are right', async () => {
  const place = join(directory, 'first');
  const home = join(directory, 'gnupg');
  mkdirSync(home, { mode: 0o700 });
  const gpg = (...parameters: string[]): Buffer =>
    execFileSync('gpg', ['--homedir', home, '--batch', '--quiet', '--passphrase', '', ...parameters]);
  gpg('--quick-generate-key', 'packages@example.org', 'ed25519', 'sign');
  gpg('--detach-sign', '--output', join(place, 'SHA256SUMS.sig'), join(place, 'SHA256SUMS'));
  writeFileSync(debian.outside('root/key.gpg'), gpg('--export'));
  copyFileSync(join(packageRoot(), 'packaging/install.sh'), debian.outside('root/install.sh'));
  const files = createServer((request, response) => {
    try {
      response.end(readFileSync(join(place, basename(request.url ?? ''))));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => files.listen(0, '127.0.0.1', resolve));
  try {
    const from = `http://127.0.0.1:${(files.address() as AddressInfo).port}`;
    const run = (...parameters: string[]) =>
      debian.run(['sh', '/root/install.sh', '--from', from, ...parameters]);
    expect(await debian.run(['sh', '/root/install.sh', '--to', from])).toMatchObject({ exitCode: 64 });
    const unsigned = await run();
    expect([unsigned.exitCode, unsigned.stderr]).toEqual([2, expect.stringContaining('--key')]);
    const sums = readFileSync(join(place, 'SHA256SUMS'));
    const refused = async (reason: RegExp): Promise<void> => {
      const { exitCode, stderr } = await run('--key', '/root/key.gpg');
      expect(exitCode, stderr).toBe(2);
      expect(stderr).toMatch(reason);
      expect((await debian.run(['sh', '-c', 'command -v kcarectl'])).stdout).toBe('');
    };
    writeFileSync(join(place, 'SHA256SUMS'), `${sums.toString()}\n`);
    await refused(/not signed by a key/);
    writeFileSync(join(place, 'SHA256SUMS'), sums);
    const deb = readFileSync(first[0] ?? '');
    writeFileSync(first[0] ?? '', Buffer.concat([deb, Buffer.from('more')]));
    await refused(/is not what SHA256SUMS says/);
    writeFileSync(first[0] ?? '', deb);
    const configured = (server: string): ReturnType<typeof run> =>
      debian.run([
        'env',
        `KCARE_PATCH_SERVER=${server}`,
        'sh',
        '/root/install.sh',
        '--from',
        from,
        '--key',
        '/root/key.gpg',
      ]);
    for (const server of ['patches.example.org', 'http://x\nAUTO_UPDATE=no', 'http://$(id)'])
      expect(await configured(server)).toMatchObject({ exitCode: 64 });
    expect((await debian.run(['sh', '-c', 'command -v kcarectl'])).stdout).toBe('');
    for (const server of ['https://patches.example.org/a', 'https://patches.example.org/b']) {
      const installed = await configured(server);
      expect(installed.exitCode, `${installed.stdout}${installed.stderr}`).toBe(0);
    }
    const lines = readFileSync(debian.outside('etc/sysconfig/kcare/kcare.conf'), 'utf8').split('\n');
    // The second run finds the key there.
    expect(lines.filter((line) => line.startsWith('PATCH_SERVER'))).toEqual([
      'PATCH_SERVER=https://patches.example.org/a',
    ]);
    expect(await debian.run(['kcarectl', '--version'])).toMatchObject({ stdout: '1.0\n' });
    expect((await debian.run(['dpkg', '-P', 'kernelcare'])).exitCode).toBe(0);
  } finally {
    files.close();
    execFileSync('gpgconf', ['--homedir', home, '--kill', 'all']);
  }
});

it('the rpm holds the same files, and rpm installs it into an empty root', () => {
  const [deb = '', rpm = ''] = first;
  const root = join(directory, 'rpm-root');
  mkdirSync(root);
  const list = (command: string, ...parameters: string[]): string[] =>
    execFileSync(command, parameters, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
      .trim()
      .split('\n');
  const ofDeb = list('sh', '-c', 'dpkg-deb --fsys-tarfile "$1" | tar -t', 'sh', deb)
    .filter((name) => !name.endsWith('/'))
    .map((name) => name.slice(1))
    .sort();
  const isDirectory = (line: string): boolean => line.startsWith('d');
  const ofRpm = list('rpm', '-qp', '--qf', '[%{FILEMODES:perms} %{FILENAMES}\\n]', rpm)
    .filter((line) => !isDirectory(line))
    .map((line) => line.slice(line.indexOf(' ') + 1))
    .sort();
  expect(ofRpm).toEqual(ofDeb);
  execFileSync('rpm', ['--root', root, '-i', '--nodeps', '--noscripts', rpm], { stdio: 'ignore' });
  const installed = list('find', root, '(', '-type', 'f', '-o', '-type', 'l', ')', '-printf', '/%P\\n');
  expect(ofDeb.filter((name) => !installed.includes(name))).toEqual([]);
  const program = join(root, 'usr/libexec/kcare/bin/kcarectl');
  const node = join(root, 'usr/libexec/kcare/node');
  expect(execFileSync(node, [program, '--version'], { encoding: 'utf8' })).toBe('1.0\n');
});
