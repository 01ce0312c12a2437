// kcarectl patch, unpatch and info: patches from files, without a feed, and what is refused.
import { chmodSync, chownSync, copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runKcarectl, type CommandResult } from '../../fixtures/support/kcarectl.js';
import { AnswersWorld } from '../host/answers.js';

let world: AnswersWorld;
let file: string;

beforeAll(() => {
  world = new AnswersWorld();
  file = world.writePatchFile(world.patch(1, 43), 'level-1');
});
afterEach(() => world.end());
afterAll(() => world.remove());

const kcarectl = (...words: readonly string[]): Promise<CommandResult> =>
  runKcarectl(join(world.directory, 'local-root'), words);

describe('patches from files', () => {
  it('are applied, listed and removed', async () => {
    const target = await world.start();
    const pid = String(target.pid);
    const dry = await kcarectl('patch', pid, file, '--dry-run');
    expect(dry.stdout).toContain('would be patched: libanswers.so (level 1)');
    expect(await world.answer(target)).toBe('answer 42');
    const applied = await kcarectl('patch', pid, file);
    expect(applied).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await world.answer(target)).toBe('answer 43');
    expect((await kcarectl('info', pid)).stdout).toMatch(/level 1 of local, active\n/);
    expect(JSON.parse((await kcarectl('info', pid, '--json')).stdout)).toMatchObject({
      result: [{ pid: target.pid, objects: [{ name: 'libanswers.so', patchset: 'local', state: 'active' }] }],
    });
    expect((await kcarectl('unpatch', pid)).exitCode).toBe(0);
    expect(await world.answer(target)).toBe('answer 42');
    expect((await kcarectl('info', pid)).stdout).toBe('No process is patched.\n');
  });

  it('count only when nobody but root can change them (R10)', async () => {
    const target = await world.start();
    const pid = String(target.pid);
    const directory = join(world.directory, 'unsafe');
    mkdirSync(directory);
    const copy = join(directory, 'copy.kpatch');
    copyFileSync(file, copy);
    const unsafe = async (): Promise<void> => {
      const result = await kcarectl('patch', pid, copy, '--json');
      expect(result.exitCode).toBe(2);
      expect(JSON.parse(result.stdout)).toMatchObject({ error: { code: 'UNSAFE_MODE' } });
      expect(await world.answer(target)).toBe('answer 42');
    };
    chmodSync(copy, 0o666);
    await unsafe();
    chmodSync(copy, 0o644);
    chownSync(copy, 65534, 65534);
    await unsafe();
    chownSync(copy, 0, 0);
    chmodSync(directory, 0o777);
    await unsafe();
    chmodSync(directory, 0o755);
    expect((await kcarectl('patch', pid, directory)).exitCode).toBe(0);
    expect(await world.answer(target)).toBe('answer 43');
    expect((await kcarectl('unpatch', pid)).exitCode).toBe(0);
  });

  it('are refused for a process without their object, and for a blacklisted one (R6)', async () => {
    const own = await kcarectl('patch', String(process.pid), file);
    expect(own.exitCode).toBe(2);
    expect(own.stdout).toContain('runs no object that these patches are for');
    const debuggerLike = await world.start('gdb');
    expect((await kcarectl('patch', String(debuggerLike.pid), file)).exitCode).toBe(2);
    expect(await world.answer(debuggerLike)).toBe('answer 42');
  });

  it.each([
    [['patch', '1']],
    [['patch', 'x.kpatch']],
    [['unpatch']],
    [['info', 'x']],
    [['repair', '1']],
    [['patch', '1', 'x.kpatch', '--lib-info']],
  ])('%j is answered with exit code 64', async (words) => {
    expect((await kcarectl(...words)).exitCode).toBe(64);
  });
});
