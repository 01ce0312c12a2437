// Lists of processes and threads, status fields, memory, all of real processes.
import { spawn } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { advance, remoteAddress } from '../../src/base/address.js';
import {
  listProcesses,
  listThreads,
  parseStatus,
  ProcessMemory,
  readCommand,
  readExecutable,
  readMaps,
  readStartTime,
  readStatus,
} from '../../src/proc/index.js';
import { MapperWorld } from './mapper.js';

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;

describe('processes', () => {
  const world = new MapperWorld();

  it('are listed when they have memory: no zombies, no kernel threads', async () => {
    const program = await world.start(['zombie']);
    const zombie = Number(/\d+/.exec(program.lines.find((line) => line.startsWith('zombie')) ?? '')?.[0]);
    expect(readStatus(zombie).state).toBe('Z');
    const pids = listProcesses();
    expect(pids).toContain(program.pid);
    expect(pids).toContain(process.pid);
    expect(pids).not.toContain(zombie);
    expect(pids).toEqual([...pids].sort((left, right) => left - right));
    for (const pid of [program.pid, process.pid]) expect(readMaps(pid).length).toBeGreaterThan(0);
  });

  it('have a program, however deep its directory lies', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcare-deep-'));
    const levels = Array.from({ length: 12 }, () => 'd'.repeat(200));
    const [one, other] = ['one', 'other'].map((top) => join(directory, top, ...levels));
    for (const path of [one, other]) mkdirSync(path ?? '', { recursive: true });
    const file = join(one ?? '', 'sleeper');
    copyFileSync('/bin/sleep', file);
    const child = spawn(file, ['infinity']);
    try {
      const pid = child.pid ?? 0;
      await expect.poll(() => readCommand(pid)).toBe('sleeper');
      expect(readExecutable(pid)).toBe(file);
      // Nobody can name so long a path at once, but directories can be moved.
      renameSync(join(directory, 'one'), join(other ?? '', 'one'));
      expect(() => readlinkSync(`/proc/${pid}/exe`)).toThrow(/ENAMETOOLONG/);
      expect(readExecutable(pid)).toBe(join(other ?? '', 'one', ...levels, 'sleeper'));
    } finally {
      child.kill('SIGKILL');
      renameSync(join(other ?? '', 'one'), join(directory, 'one'));
      rmSync(directory, { recursive: true });
    }
  });

  it('tell their state', async () => {
    const program = await world.start(['name=a) R \\ b']);
    expect(readStatus(program.pid)).toMatchObject({
      name: 'a) R \\ b',
      tgid: program.pid,
      parentPid: process.pid,
      uid: process.geteuid?.(),
      tracerPid: 0,
      threads: 1,
      seccomp: readStatus(process.pid).seccomp,
    });
    process.kill(program.pid, 'SIGSTOP');
    await expect.poll(() => readStatus(program.pid).state).toBe('T');
    process.kill(program.pid, 'SIGCONT');
    await expect.poll(() => readStatus(program.pid).state).toBe('S');
    expect(readStatus(program.pid).namespacePids[0]).toBe(program.pid);
    expect(readCommand(program.pid)).toBe('a) R \\ b');
    expect(listProcesses()).toContain(program.pid);
  });

  it('cannot forge fields by their name', async () => {
    const program = await world.start(['name=x\nTracerPid: 7']);
    expect(readStatus(program.pid)).toMatchObject({ name: 'x\nTracerPid: 7', tracerPid: 0 });
  });

  it('have a start time that tells them from later ones with the same pid', async () => {
    const program = await world.start();
    expect(readStartTime(program.pid)).toBe(readStartTime(program.pid));
    expect(readStartTime(program.pid)).toBeGreaterThan(readStartTime(process.pid));
  });

  it('have threads', () => {
    const threads = listThreads(process.pid);
    expect(threads).toContain(process.pid);
    expect(threads.length).toBe(readStatus(process.pid).threads);
  });

  it('are gone when they are gone', async () => {
    const program = await world.start();
    const { pid } = program;
    await program.end();
    for (const read of [
      readStatus,
      listThreads,
      readCommand,
      readStartTime,
      (gone: number) => ProcessMemory.open(gone),
    ]) {
      expect(() => read(pid)).toThrow(withCode('TARGET_GONE'));
    }
  });

  it('may have a shadow stack, which the kernel reports for its threads', () => {
    expect(parseStatus('Name:\tx\nx86_Thread_features:\tshstk wrss\n').shadowStack).toBe(true);
    expect(
      parseStatus('Name:\tx\nx86_Thread_features:\t\nx86_Thread_features_locked:\tshstk\n').shadowStack,
    ).toBe(false);
  });
});

describe('memory of a process', () => {
  const world = new MapperWorld();

  it('is read exactly, or not at all', async () => {
    const program = await world.start();
    const memory = ProcessMemory.open(program.pid);
    const maps = readMaps(program.pid);
    const first = maps.find(({ path, offset }) => path === world.mapper && offset === 0);
    if (!first) throw new Error('the program maps itself');
    expect(Buffer.from(memory.read(first.start, 4096))).toEqual(readFileSync(world.mapper).subarray(0, 4096));
    const vdso = maps.find(({ path }) => path === '[vdso]');
    const stack = maps.find(({ path }) => path === '[stack]');
    for (const last of [vdso, stack]) {
      if (!last || maps.some(({ start }) => start === last.end)) continue;
      expect(memory.read(advance(last.end, -16), 16)).toHaveLength(16);
      expect(() => memory.read(advance(last.end, -16), 17)).toThrow(withCode('TARGET_MEMORY'));
    }
    for (const address of [0n, 1n << 47n, (1n << 63n) - 8n, 1n << 63n, (1n << 64n) - 1n]) {
      expect(() => memory.read(remoteAddress(address), 16), String(address)).toThrow(
        withCode('TARGET_MEMORY'),
      );
    }
    await program.end();
    expect(() => memory.read(first.start, 16)).toThrow(withCode('TARGET_GONE'));
    memory.close();
  });
});
