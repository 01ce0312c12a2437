// kcare-uchecker against real processes: libraries that are replaced, deleted, patched, and in containers.
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { fixtureProgram } from '../../fixtures/support/openssl.js';
import { buildOpensslPatch, type BuiltPatch } from '../../fixtures/support/patches.js';
import { buildIdOf, parseElf } from '../../src/elf/index.js';
import { readPatch, writePatch } from '../../src/patchfile/index.js';
import { CheckerWorld, replaceFile, runCommand, runJson } from './world.js';

let built: BuiltPatch;
beforeAll(async () => {
  built = await buildOpensslPatch(['CVE-2026-22796']);
});

const idOf = (file: string): string | undefined => buildIdOf(parseElf(fs.readFileSync(file)));

/** The same patch at a higher level. */
function higherLevel(directory: string, level: number): string {
  const patch = readPatch(fs.readFileSync(built.file));
  const file = path.join(directory, `level-${level}.kpatch`);
  fs.writeFileSync(file, writePatch({ ...patch, metadata: { ...patch.metadata, level } }), { mode: 0o644 });
  return file;
}

describe('what the feed knows', () => {
  it('makes a process outdated until that level is in its own memory', async () => {
    const world = new CheckerWorld();
    const host = await LocalHost.create(world.sub('host'), [built.file]);
    const target = await world.startOn(world.libraries(built.unpacked));
    const named = ['--root', host.root, '--pid', `${target.pid}`];

    const before = await runCommand('kcare-uchecker', ['--refresh', ...named]);
    expect(before.stdout).toContain(
      `[*] Process threads[${target.pid}] linked to the \`libcrypto.so.3\` that is not up to date.\n`,
    );
    expect(before.stdout).toContain('CVE-2026-22796');
    expect(before.stdout).toContain(built.runs);
    expect(before.exitCode).toBe(5);

    expect((await host.kcarectl('--lib-update', '--pid', `${target.pid}`)).exitCode).toBe(0);
    const patched = await runCommand('kcare-uchecker', named);
    expect(patched.stdout).toMatch(/^It looks OK: .* 1 known fixes of patchset U\d+_\d+\.\n$/);
    expect(patched.exitCode).toBe(0);

    // The level counts: a patch that is not the newest does not make it up to date.
    await host.publish([higherLevel(world.directory, 7)]);
    const stale = await runJson(['--refresh', ...named]);
    expect(stale.exitCode).toBe(5);
    expect(stale.report.processes[0]?.objects).toMatchObject([
      { name: 'libcrypto.so.3', reasons: ['fix-known'], patchable: true, level: 1, knownLevel: 7 },
    ]);

    expect((await host.kcarectl('--lib-update', '--pid', `${target.pid}`)).exitCode).toBe(0);
    expect((await runJson(named)).report.status).toBe('clean');
    expect((await host.kcarectl('--lib-unload', '--pid', `${target.pid}`)).exitCode).toBe(0);
    expect((await runJson(named)).report.status).toBe('outdated');
  });

  it('is never taken for nothing when it is not known', async () => {
    const world = new CheckerWorld();
    const target = await world.startOn(world.libraries(built.unpacked));
    const named = ['--root', world.sub('empty'), '--pid', `${target.pid}`];
    const { exitCode, stdout } = await runCommand('kcare-uchecker', named);
    expect(exitCode).toBe(4);
    expect(stdout).toContain('PATCH_SERVER is not set');
    expect(stdout).not.toContain('looks OK');
    // Looking makes nothing.
    expect(fs.readdirSync(path.join(world.directory, 'empty'))).toEqual([]);
    const left = await runJson([...named, '--no-feed']);
    expect(left).toMatchObject({ exitCode: 0, report: { status: 'clean', feed: null } });
  });

  it('counts what is cached when the server cannot be asked, and says so', async () => {
    const world = new CheckerWorld();
    const host = await LocalHost.create(world.sub('host'), [built.file]);
    const target = await world.startOn(world.libraries(built.unpacked));
    const named = ['--root', host.root, '--pid', `${target.pid}`];
    await host.kcarectl('--lib-update', '--pid', `${target.pid}`);
    fs.renameSync(host.feedDirectory, `${host.feedDirectory}.away`);
    const { exitCode, report } = await runJson(['--refresh', ...named]);
    expect(exitCode).toBe(4);
    expect(report.problems).toMatchObject([{ code: 'FEED_UNREACHABLE' }]);
    expect(report.feed?.fixes).toBe(1);
  });
});

describe('what is on disk', () => {
  it('makes a process outdated when it is another build, and only then', async () => {
    const world = new CheckerWorld();
    const libraries = world.libraries(built.unpacked);
    const library = path.join(libraries, 'libcrypto.so.3');
    const named = ['--no-feed', '--pid', `${(await world.startOn(libraries)).pid}`];
    expect(await runJson(named)).toMatchObject({ exitCode: 0, report: { status: 'clean' } });

    // The same build in a new file: a package that was installed again.
    replaceFile(library, library);
    expect(await runJson(named)).toMatchObject({ exitCode: 0, report: { status: 'clean' } });

    const old = idOf(library);
    replaceFile(library, path.join(libraries, 'libssl.so.3'));
    const { exitCode, report } = await runJson(named);
    expect(exitCode).toBe(5);
    expect(report.processes[0]?.objects).toMatchObject([
      {
        path: library,
        buildId: old,
        installedBuildId: idOf(library),
        reasons: ['replaced'],
        patchable: false,
      },
    ]);
    const { stdout } = await runCommand('kcare-uchecker', named);
    expect(stdout).toMatch(
      /^\[ \] Process threads\[\d+\] linked to the `libcrypto.so.3` that is not up to date.\n/,
    );
    expect(stdout).toContain('restart these processes');
  });

  it('still counts for a patched process, unless what is installed is known to be no newer than the fixes', async () => {
    const world = new CheckerWorld();
    const host = await LocalHost.create(world.sub('host'), [built.file]);
    const root = world.container(built.unpacked, 'quince');
    const target = await world.startIn('pivot', root);
    const named = ['--root', host.root, '--pid', `${target.pid}`];
    expect((await host.kcarectl('--lib-update', '--pid', `${target.pid}`)).exitCode).toBe(0);
    const library = path.join(root, 'usr/lib/x86_64-linux-gnu/libcrypto.so.3');
    replaceFile(library, path.join(path.dirname(library), 'libc.so.6'));
    const { report } = await runJson(named);
    expect(report.processes[0]?.objects).toMatchObject([
      { reasons: ['replaced'], level: 1, patchable: false, runningVersion: built.runs },
    ]);
    const status = path.join(root, 'var/lib/dpkg/status');
    fs.writeFileSync(status, fs.readFileSync(status, 'utf8').replace('3.0.99-quince1', built.fixed));
    expect((await runJson(named)).report.status).toBe('clean');
  });

  it.each([
    'with space',
    'semi;colon',
    'new\nline',
    'name (deleted)',
    'back\\012slash',
    'ümläut',
    '\u001b[31mred',
  ])('is found under any name: %j', async (name) => {
    const world = new CheckerWorld();
    const libraries = world.libraries(built.unpacked, name);
    const mapper = world.compile('proc/mapper.c', 'mapper');
    const target = await world.start([mapper, `x:${path.join(libraries, 'libcrypto.so.3')}`]);
    const named = ['--no-feed', '--pid', `${target.pid}`];
    expect((await runJson(named)).report.status).toBe('clean');
    replaceFile(path.join(libraries, 'libcrypto.so.3'), path.join(libraries, 'libssl.so.3'));
    const { report } = await runJson(named);
    expect(report.processes[0]?.objects[0]?.path).toBe(path.join(libraries, 'libcrypto.so.3'));
    const { stdout } = await runCommand('kcare-uchecker', named);
    // No control character but the ends of lines.
    expect(stdout.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
  });

  it('does not count for files in memory and for what is mapped without being executed', async () => {
    const world = new CheckerWorld();
    const mapper = world.compile('proc/mapper.c', 'mapper');
    const data = path.join(world.libraries(built.unpacked), 'libssl.so.3');
    const target = await world.start([mapper, `r:${data}`]);
    fs.rmSync(data);
    const { report } = await runJson(['--no-feed', '--pid', `${target.pid}`]);
    expect(report.status).toBe('clean');
  });
});

describe('containers', () => {
  it.each(['chroot', 'unshare', 'pivot'] as const)('are judged by their own data: %s', async (mode) => {
    const world = new CheckerWorld();
    const root = world.container(built.unpacked, 'quince');
    const target = await world.startIn(mode, root);
    const named = ['--no-feed', '--pid', `${target.pid}`];
    expect((await runJson(named)).report).toMatchObject({ status: 'clean', unexamined: [] });

    const library = path.join(root, 'usr/lib/x86_64-linux-gnu/libcrypto.so.3');
    const old = idOf(library);
    replaceFile(library, path.join(path.dirname(library), 'libc.so.6'));
    const replaced = await runJson(named);
    expect(replaced.exitCode).toBe(5);
    expect(replaced.report.processes).toMatchObject([
      {
        distribution: { id: 'quince', versionId: '7', name: 'Quince Linux 7 (quince)' },
        objects: [
          {
            path: '/usr/lib/x86_64-linux-gnu/libcrypto.so.3',
            buildId: old,
            installedBuildId: idOf(library),
            reasons: ['replaced'],
            package: 'libssl3',
            installedVersion: '3.0.99-quince1',
            runningVersion: '3.0.98-quince1',
          },
        ],
      },
    ]);
    expect('container' in (replaced.report.processes[0] ?? {})).toBe(mode !== 'chroot');

    fs.rmSync(library);
    const deleted = await runJson(named);
    expect(deleted.report.processes[0]?.objects).toMatchObject([{ buildId: old, reasons: ['deleted'] }]);
  });

  it('do not answer for one another: equal paths, different files', async () => {
    const world = new CheckerWorld();
    const roots = ['one', 'two'].map((name) => world.container(built.unpacked, name));
    const targets = await Promise.all(roots.map((root) => world.startIn('pivot', root)));
    const library = path.join(roots[1] ?? '', 'usr/lib/x86_64-linux-gnu/libcrypto.so.3');
    replaceFile(library, path.join(path.dirname(library), 'libc.so.6'));
    const pids = targets.map(({ pid }) => `${pid}`).join(',');
    const { report } = await runJson(['--no-feed', '--pid', pids]);
    expect(report.processes.map(({ pid }) => pid)).toEqual([targets[1]?.pid]);
    expect(report.processes[0]?.distribution?.name).toBe('Quince Linux 7 (two)');
    expect(report.examined.containers).toBe(2);
  });

  it('leave a daemon that changed its root later to the root that it came from', async () => {
    const world = new CheckerWorld();
    const jail = world.compile('checker/jail.c', 'jail');
    const target = await world.start([jail, 'late', world.sub('run'), 'self']);
    const named = ['--no-feed', '--pid', `${target.pid}`];
    expect((await runJson(named)).report).toMatchObject({ status: 'clean', unexamined: [] });
    replaceFile(jail, fixtureProgram('bench/threads'));
    expect((await runJson(named)).report.processes[0]?.objects).toMatchObject([
      { path: jail, reasons: ['replaced'] },
    ]);
  });
});
