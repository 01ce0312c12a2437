// Objects found in the memory of real processes, also of hostile ones.
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildIdOf, parseElf } from '../../src/elf/index.js';
import { mappedObjects, readMaps, type MappedObject } from '../../src/proc/index.js';
import { random } from '../random.js';
import { MapperWorld } from './mapper.js';

const named = (pid: number, path: string): MappedObject[] =>
  mappedObjects(pid).filter((object) => object.path === path);

describe('mapped objects', () => {
  const world = new MapperWorld();
  const buildId = buildIdOf(parseElf(readFileSync(world.mapper)));

  it('are the program, its libraries and the loader, with the build-ids of their files', async () => {
    const program = await world.start();
    const objects = mappedObjects(program.pid);
    expect(objects.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['mapper', 'libc.so.6', 'ld-linux-x86-64.so.2']),
    );
    for (const object of objects) {
      expect(object.buildId, object.path).toBe(buildIdOf(parseElf(readFileSync(object.path))));
      expect(object.executable).toBe(true);
      expect(object.start).toBe(object.mappings[0]?.start);
      expect(object.mappings.every(({ start, end }) => object.start <= start && end <= object.end)).toBe(
        true,
      );
      // Nothing of the file is left out.
      const all = readMaps(program.pid).filter(({ path }) => path === object.path);
      expect(object.mappings).toEqual(all);
    }
  });

  it('are known by memory when the file was deleted or replaced by another', async () => {
    const path = world.copy('replaced');
    const program = await world.start([], path);
    rmSync(path);
    expect(named(program.pid, path)).toMatchObject([{ buildId, deleted: true, name: 'replaced' }]);
    copyFileSync('/bin/true', path);
    expect(named(program.pid, path)).toMatchObject([{ buildId, deleted: true }]);
  });

  it('that are also mapped as data are told from the code that runs', async () => {
    const program = await world.start([`r:${world.mapper}`]);
    const objects = named(program.pid, world.mapper);
    expect(objects.map(({ executable }) => executable).sort()).toEqual([false, true]);
    const data = objects.find(({ executable }) => !executable);
    expect(program.lines).toContain(`mapped 0x${data?.mappings[0]?.start.toString(16)} ${world.mapper}`);
    expect(objects.map((object) => object.buildId)).toEqual([buildId, buildId]);
  });

  it('do not include files of which no code runs', async () => {
    const copy = world.copy('data only');
    const program = await world.start([`r:${copy}`]);
    expect(named(program.pid, copy)).toEqual([]);
  });

  it('are left out when their headers make no sense, and the others are still found', async () => {
    const original = readFileSync(world.mapper);
    const broken: Record<string, (bytes: Buffer) => void> = {
      'no-magic': (bytes) => bytes.fill(0, 0, 4),
      'wrong-class': (bytes) => bytes.writeUInt8(1, 4),
      'headers-far-away': (bytes) => bytes.writeBigUInt64LE(0xffff_ffff_ffff_fff0n, 32),
      'headers-too-many': (bytes) => bytes.writeUInt16LE(0xffff, 56),
      'headers-too-small': (bytes) => bytes.writeUInt16LE(1, 54),
    };
    const paths = Object.entries(broken).map(([name, damage]) => {
      const bytes = Buffer.from(original);
      damage(bytes);
      const path = join(world.directory, name);
      writeFileSync(path, bytes);
      return path;
    });
    const empty = join(world.directory, 'short');
    writeFileSync(empty, 'x');
    const program = await world.start([...paths, empty].map((path) => `x:${path}`));
    for (const path of paths) expect(named(program.pid, path), path).toEqual([]);
    expect(named(program.pid, world.mapper)).toMatchObject([{ buildId }]);
  });

  it('never crash the reader, whatever the first page holds', async () => {
    const original = readFileSync(world.mapper);
    const next = random(20261122);
    const paths = Array.from({ length: 120 }, (_, index) => {
      const bytes = Buffer.from(original.subarray(0, 8192));
      for (let change = 0; change < 1 + (next() % 12); change++) {
        // Header and program headers, with values that are likely to be at a limit.
        const offset = 16 + (next() % 900);
        bytes[offset] = [0, 1, 0x7f, 0x80, 0xff, next() & 0xff][next() % 6] ?? 0;
      }
      const path = join(world.directory, `fuzz-${index}`);
      writeFileSync(path, bytes);
      return path;
    });
    const program = await world.start(paths.map((path) => `x:${path}`));
    const objects = mappedObjects(program.pid);
    expect(objects.filter(({ path }) => path === world.mapper)).toMatchObject([{ buildId }]);
    for (const object of objects) expect(object.buildId).toMatch(/^([0-9a-f]{2})*$/);
  });
});
