// The maps of real processes: strange paths, deleted files, processes that end.
import { renameSync, rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseMaps, readMaps } from '../../src/proc/index.js';
import { MapperWorld } from './mapper.js';

describe('maps of a process', () => {
  const world = new MapperWorld();

  it('names files with spaces, newlines and brackets as they are', async () => {
    for (const name of ['with two  spaces', 'line\nbreak', 'brackets (not deleted)', ' leading', 'ümlaut']) {
      const path = world.copy(name);
      const program = await world.start([], path);
      const own = readMaps(program.pid).filter((mapping) => mapping.path === path);
      expect(own.length, JSON.stringify(name)).toBeGreaterThan(1);
      expect(own.some(({ permissions }) => permissions === 'r-xp')).toBe(true);
      expect(own.every(({ deleted }) => !deleted)).toBe(true);
    }
  });

  it('says that a file is deleted, and keeps the mark out of its path', async () => {
    const path = world.copy('soon gone');
    const program = await world.start([], path);
    rmSync(path);
    const own = readMaps(program.pid).filter((mapping) => mapping.path === path);
    expect(own.length).toBeGreaterThan(1);
    expect(own.every(({ deleted }) => deleted)).toBe(true);
  });

  it('follows a renamed file', async () => {
    const path = world.copy('old name');
    const program = await world.start([], path);
    renameSync(path, `${path} 2`);
    expect(readMaps(program.pid).some((mapping) => mapping.path === `${path} 2` && !mapping.deleted)).toBe(
      true,
    );
  });

  it('knows heap, stack and anonymous memory', async () => {
    const program = await world.start();
    const maps = readMaps(program.pid);
    expect(maps.map(({ path }) => path)).toEqual(expect.arrayContaining(['[heap]', '[stack]', '[vdso]', '']));
    expect(maps.every(({ start, end }) => start < end)).toBe(true);
    expect(maps.filter(({ path }) => path === '[stack]')).toMatchObject([{ inode: 0, deleted: false }]);
  });

  it('says that a process is gone', async () => {
    const program = await world.start();
    await program.end();
    expect(() => readMaps(program.pid)).toThrow(expect.objectContaining({ code: 'TARGET_GONE' }) as Error);
  });

  it('reads addresses and offsets beyond 32 bits exactly', () => {
    const text =
      '7ffff7fbd000-7ffff7fc1000 r--s 1ff000000 103:0a 123456789012 /var/lib/big file\n' +
      'ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n';
    expect(parseMaps(text)).toEqual([
      {
        start: 0x7ffff7fbd000n,
        end: 0x7ffff7fc1000n,
        permissions: 'r--s',
        offset: 0x1ff000000,
        device: '103:0a',
        inode: 123456789012,
        path: '/var/lib/big file',
        deleted: false,
      },
      {
        start: 0xffffffffff600000n,
        end: 0xffffffffff601000n,
        permissions: '--xp',
        offset: 0,
        device: '00:00',
        inode: 0,
        path: '[vsyscall]',
        deleted: false,
      },
    ]);
  });
});
