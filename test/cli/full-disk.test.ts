// kcarectl on a disk that is full or read-only: it names what it could not write, and a target is patched as a whole or left as it was.
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { countChangedCodeBytes } from '../../fixtures/support/process-memory.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { SmallHost } from '../../fixtures/support/small-host.js';
import { packageRoot } from '../../src/base/package-root.js';
import { Program } from '../../fixtures/support/program.js';
import { AnswersWorld } from '../host/answers.js';

let world: AnswersWorld;
let host: LocalHost;
let target: Program;

beforeAll(async () => {
  world = new AnswersWorld();
  host = await LocalHost.create(join(world.directory, 'host'), [
    world.writePatchFile(world.patch(1, 43), 'level-1'),
  ]);
  target = await Program.start(world.compiled.program, ['2']);
  await target.waitForLine(/^ready/);
});
afterAll(async () => {
  await target.end();
  world.remove();
});

/** A file system of its own, without a free byte, at this place below the root directory; needs root. */
function fullDisk(place: string): string {
  const directory = join(host.root, place);
  mkdirSync(directory, { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k,mode=755', 'kcare-test', directory]);
  onTestFinished(() => void execFileSync('umount', ['-l', directory]));
  expect(() => appendFileSync(join(directory, 'filler'), Buffer.alloc(65_536))).toThrow(/ENOSPC/);
  return directory;
}

const kcarectl = (action: string): ReturnType<LocalHost['kcarectl']> =>
  host.kcarectl(action, '--pid', String(target.pid));

const changedBytes = (): number => countChangedCodeBytes(target.pid, world.compiled.library);

describe('a full disk', () => {
  it.each([
    ['for the cache', 'var/cache/kcare', ''],
    ['for the lock', 'run/kcare', '/kcarectl.lock'],
    ['for the journal of intents', 'run/kcare/intents', ''],
  ])('%s is named, and leaves the target as it was', async (_, place, file) => {
    const directory = fullDisk(place);
    const { exitCode, stdout, stderr } = await kcarectl('--lib-update');
    expect(exitCode).toBe(1);
    expect(stdout + stderr).toContain(`${directory}${file} cannot be`);
    expect(stdout + stderr).toContain('ENOSPC');
    expect(stdout + stderr).toContain('Free some disk space and run the command again.');
    expect(await world.answer(target)).toBe('answer 42');
    expect(changedBytes()).toBe(0);
  });

  it('for the log is named, and keeps no process from being patched', async () => {
    const warning = `kcarectl: warning: The log ${fullDisk('var/log')}/kcarectl.log cannot be written: ENOSPC`;
    for (const [action, answer] of [
      ['--lib-update', 'answer 43'],
      ['--lib-unload', 'answer 42'],
    ] as const) {
      const { exitCode, stderr } = await kcarectl(action);
      expect({ exitCode, stderr }).toEqual({
        exitCode: 0,
        stderr: expect.stringContaining(warning) as string,
      });
      expect(await world.answer(target)).toBe(answer);
    }
    expect(changedBytes()).toBe(0);
  });

  it('that has room again lets the next run do everything', async () => {
    expect(await kcarectl('--lib-update')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await world.answer(target)).toBe('answer 43');
    expect(await kcarectl('--lib-unload')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(changedBytes()).toBe(0);
  });
});

describe('a disk that an error made read-only', () => {
  it('keeps no patch in a process, and is named', async () => {
    const small = await SmallHost.create();
    onTestFinished(() => small.end());
    const all = (...parameters: string[]): ReturnType<SmallHost['run']> =>
      small.run(join(packageRoot(), 'bin', 'kcarectl'), ['--root', host.root, ...parameters]);
    const { program } = await small.start(world.compiled.program);
    await program.waitForLine(/^ready/);
    expect(await all('--lib-update')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await world.answer(program)).toBe('answer 43');
    const disk = join(host.root, 'var');
    await small.bind(disk, disk);
    expect(await small.run('mount', ['-o', 'remount,bind,ro', disk])).toMatchObject({ exitCode: 0 });
    const again = await all('--lib-update', '--json');
    expect(again.exitCode).toBe(1);
    expect(JSON.parse(again.stdout)).toMatchObject({
      error: {
        code: 'READ_ONLY',
        message: expect.stringMatching(/^\S+\/standing\.json cannot be written: EROFS: /) as string,
      },
    });
    const unload = await all('--lib-unload');
    expect(unload).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('have been removed from 1 process') as string,
    });
    expect(unload.stderr).toMatch(
      /warning: New processes are patched as they begin.* EROFS: .*standing\.json/,
    );
    expect(await world.answer(program)).toBe('answer 42');
  });
});
