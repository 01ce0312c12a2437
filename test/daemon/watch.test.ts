// Processes that begin while libcare-server runs, and libraries that are loaded later: patched without being asked.
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import {
  compileNewcomers,
  compileStorm,
  sightings,
  type NewcomerPrograms,
} from '../../fixtures/support/newcomers.js';
import type { Program } from '../../fixtures/support/program.js';
import { SmallHost } from '../../fixtures/support/small-host.js';
import { packageRoot } from '../../src/base/package-root.js';
import { AnswersWorld } from '../host/answers.js';
import { program, runFile, ServedHost, until } from './served-host.js';

let world: AnswersWorld;
let served: ServedHost;
let programs: NewcomerPrograms;
const levels: string[] = [];

interface Watch {
  readonly state: string;
  readonly reason: string;
  readonly patchset: string;
  readonly waiting: number;
  readonly sources: { readonly files: string };
  readonly counts: Readonly<Record<string, number>>;
}

const watch = async (): Promise<Watch> => (await served.status())['watch'] as Watch;
const isOn = async (): Promise<boolean> => (await watch()).state === 'on';
const untilOff = (reason: RegExp): Promise<void> =>
  until(async () => {
    const now = await watch();
    return now.state === 'off' && reason.test(now.reason);
  });

beforeAll(async () => {
  world = new AnswersWorld();
  programs = compileNewcomers(world.directory, world.compiled.library);
  for (const level of [1, 2])
    levels.push(world.writePatchFile(world.patch(level, 42 + level), `level-${level}`));
  served = await ServedHost.start(join(world.directory, 'host'), levels.slice(0, 1));
  served.host.patchOnly(world.directory);
});
afterEach(() => world.end());
afterAll(async () => {
  await served.end();
  world.remove();
});

/** The answers that the program in the file gave until one was new, or it had lived that long. */
async function answersOf(file: string, lifetimeMs: number, ...more: readonly string[]): Promise<number[]> {
  const { stdout } = await runFile(file, [String(lifetimeMs), ...more]);
  return sightings(stdout).map(({ answer }) => answer);
}

/** Longer than any patch takes here; who is not to be patched is watched for less. */
const long = 60_000;
const short = 300;

async function update(): Promise<void> {
  const { stdout } = await served.host.kcarectl('--lib-update', '--json');
  const { patchset } = JSON.parse(stdout) as { readonly patchset: string };
  await until(async () => (await watch()).patchset === patchset);
}

/** An unload of all processes of a host that has no others than this: no other of this machine is unloaded. */
async function unloadAll(): Promise<void> {
  const alone = await SmallHost.create();
  try {
    const { root } = served.host;
    const nothing = join(world.directory, 'nothing');
    mkdirSync(nothing);
    // Without the server, which sees them all.
    await alone.bind(nothing, dirname(served.socket));
    const { exitCode, stderr } = await alone.run(program('kcarectl'), ['--root', root, '--lib-unload']);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  } finally {
    await alone.end();
  }
}

it('leaves new processes alone until an update of all processes was made', async () => {
  await untilOff(/^No update of all processes/);
  expect(await answersOf(programs.early, short)).toEqual([42]);
  const target = await world.start();
  await served.host.kcarectl('--lib-update', '--pid', String(target.pid));
  expect((await watch()).state).toBe('off');
  await update();
});

it('patches a process that begins, one that it forks, and a library that is loaded later, each time', async () => {
  expect(await answersOf(programs.early, long)).toEqual([43]);
  expect(await answersOf(programs.early, long, 'fork')).toEqual([43]);
  expect(await answersOf(programs.late, long, '', '3', world.compiled.library)).toEqual([43, 43, 43]);
});

it('does so again after it was killed, by what is on disk and in the processes', async () => {
  process.kill(served.serverPid, 'SIGKILL');
  const meanwhile = await world.start();
  expect(await world.answer(meanwhile)).toBe('answer 42');
  await served.startAgain();
  await until(async () => (await world.answer(meanwhile)) === 'answer 43');
  expect(await answersOf(programs.early, long)).toEqual([43]);
});

it('leaves alone what was unloaded by name, what is on the blacklist, and what has a higher level', async () => {
  const unloaded = await world.start();
  await until(async () => (await world.answer(unloaded)) === 'answer 43');
  await served.host.kcarectl('--lib-unload', '--pid', String(unloaded.pid));
  served.host.patchOnly(world.directory, 'filename:spared # as it says');
  await until(isOn);
  const spared = await world.start('spared');
  const control = await world.start();
  await until(async () => (await world.answer(control)) === 'answer 43');
  await served.host.publish(levels.slice(1));
  const raised = await world.start();
  await served.host.kcarectl('--lib-update', '--pid', String(raised.pid));
  // A sweep over all of them.
  await served.startAgain();
  await until(async () => (await watch()).counts['sweeps'] === 1 && (await watch()).waiting === 0);
  expect(await world.answer(unloaded)).toBe('answer 42');
  expect(await world.answer(spared)).toBe('answer 42');
  expect(await world.answer(raised)).toBe('answer 44');
  expect(await world.answer(control)).toBe('answer 43');
});

it('follows an update to the next level, and an unload of all processes', async () => {
  await update();
  expect(await answersOf(programs.early, long)).toEqual([44]);
  await unloadAll();
  await untilOff(/were unloaded since/);
  expect(await answersOf(programs.early, short)).toEqual([42]);
  await update();
  expect(await answersOf(programs.early, long)).toEqual([44]);
});

it('does nothing while LibCare is turned off', async () => {
  await served.host.kcarectl('--disable-libcare');
  await untilOff(/turned off/);
  expect(await answersOf(programs.early, short)).toEqual([42]);
  await served.host.kcarectl('--enable-libcare');
  await until(isOn);
  expect(await answersOf(programs.early, long)).toEqual([44]);
});

it('fetches a patch that is damaged in the cache', async () => {
  const wanted = readFileSync(levels[1] ?? '');
  const cache = join(served.host.root, 'var/cache/kcare');
  const cached = readdirSync(cache, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
    .filter((file) => readFileSync(file).equals(wanted));
  expect(cached).toHaveLength(1);
  for (const file of cached) writeFileSync(file, wanted.subarray(1));
  await served.startAgain();
  await until(isOn);
  expect(await answersOf(programs.early, long)).toEqual([44]);
  expect(cached.map((file) => readFileSync(file).equals(wanted))).toEqual([true]);
});

it('comes back to a process that is busy, and notes one that stays so', async () => {
  await served.host.publish([world.writePatchFile(world.blocker(3), 'blocker')]);
  const inside: Program = await world.startBlocked();
  await update();
  const info = async (): Promise<string> =>
    (await served.host.kcarectl('--lib-info', '--pid', String(inside.pid), '--json')).stdout;
  await until(async () => (await info()).includes('TARGET_BUSY'));
  inside.writeLine('open');
  await inside.waitForLine(/^inside /);
  await served.startAgain();
  await until(async () => (await info()).includes('"state":"patched"'));
});

it('harms nobody in a storm of short processes', async () => {
  await served.host.publish([world.writePatchFile(world.patch(4, 45), 'level-4')]);
  await update();
  const storm = compileStorm(world.directory);
  const before = await served.status();
  const { stdout, stderr, exitCode } = await runFile(storm, ['100', '5', programs.early, programs.late]);
  expect({ stderr, exitCode }).toEqual({ stderr: '', exitCode: 0 });
  const all = sightings(stdout);
  expect(all).toHaveLength(250);
  expect(all.filter(({ answer }) => ![42, 45].includes(answer))).toEqual([]);
  expect(all.map(({ answer }) => answer)).toContain(45);
  await until(async () => (await watch()).waiting === 0);
  const after = await served.status();
  expect(after['pid']).toBe(before['pid']);
});

it('sweeps where the use of a library cannot be reported', async () => {
  const place = join(world.directory, 'private');
  mkdirSync(place);
  chmodSync(world.directory, 0o755);
  await served.startAgain();
  await until(isOn);
  const words = [programs.late, String(long), '', '2', join(place, basename(world.compiled.library))];
  const script = join(packageRoot(), 'test/daemon/private-library.py');
  const { stdout, stderr } = await runFile('/usr/bin/python3', [
    script,
    world.compiled.library,
    place,
    ...words,
  ]);
  expect({ stderr, answers: sightings(stdout).map(({ answer }) => answer) }).toEqual({
    stderr: '',
    answers: [45, 45],
  });
  expect((await watch()).sources.files).not.toBe('');
});
