// What the daemon hears of the host: beginnings that never pause, files of processes that ended before they were marked,
// files that cannot be marked, and none of those that a process only shows.
import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { Program } from '../../fixtures/support/program.js';
import { SmallHost } from '../../fixtures/support/small-host.js';
import { watchHost, type HostWatch } from '../../src/addon/host.js';
import { packageRoot } from '../../src/base/package-root.js';
import { WatchedFiles } from '../../src/daemon/watched-files.js';
import { discover, type HostProcess } from '../../src/host/index.js';
import { AnswersWorld } from '../host/answers.js';
import { until } from './served-host.js';

let world: AnswersWorld;
let watch: HostWatch | undefined;
const storms: ChildProcess[] = [];

beforeAll(() => {
  world = new AnswersWorld();
});
afterEach(async () => {
  watch?.stop();
  watch = undefined;
  for (const storm of storms.splice(0)) storm.kill('SIGKILL');
  await world.end();
});
afterAll(() => world.remove());

function unexpected(): never {
  throw new Error('A file could not be watched.');
}

const isAnswers = (buildId: string): boolean => buildId === world.patch(1, 43).buildId;

function onlyProcess(pid: number): HostProcess {
  const [found] = discover({ pids: [pid] }).processes;
  if (!found) throw new Error(`Process ${pid} uses no library.`);
  return found;
}

it('tells of processes that begin while others begin without a pause', async () => {
  let told = 0;
  watch = watchHost((begun) => void (told += begun.length > 0 ? 1 : 0));
  expect(watch.processesError).toBe(0);
  for (let lane = 0; lane < 3; lane++)
    storms.push(spawn('sh', ['-c', 'while :; do /bin/true; done'], { stdio: 'ignore' }));
  await until(() => told > 20);
  expect(storms.map(({ exitCode }) => exitCode)).toEqual([null, null, null]);
});

it('watches a file although the first process that was seen to use it has ended', async () => {
  const touched: number[] = [];
  watch = watchHost((_begun, pids) => void touched.push(...pids));
  expect(watch.filesError).toBe(0);
  const files = new WatchedFiles(watch, () => true, unexpected);
  const first = await world.start();
  const ended = onlyProcess(first.pid);
  await first.end();
  files.add(ended);
  expect(files.count).toBe(0);
  const second = await world.start();
  files.add(onlyProcess(second.pid));
  expect(files.problem).toBe(0);
  const third = await world.start();
  await until(() => touched.includes(third.pid));
});

it('watches what a process has mapped, and not what it shows at the path of that', async () => {
  const host = await SmallHost.create();
  try {
    const { program, library } = world.compiled;
    const bystander = join(world.directory, 'bystander');
    const decoy = join(world.directory, 'decoy');
    writeFileSync(bystander, 'nobody loads this');
    mkdirSync(decoy);
    symlinkSync(bystander, join(decoy, basename(library)));
    const inside = await host.start(program);
    await inside.program.waitForLine(/^ready/);
    await host.bind(decoy, dirname(library));
    const touched: number[] = [];
    watch = watchHost((_begun, pids) => void touched.push(...pids));
    new WatchedFiles(watch, isAnswers, unexpected).add(onlyProcess(inside.outerPid));
    const reader = spawn('cat', [bystander], { stdio: 'ignore' });
    await new Promise((resolve) => reader.once('close', resolve));
    const user = await world.start();
    await until(() => touched.includes(user.pid));
    expect(touched).not.toContain(reader.pid);
  } finally {
    await host.end();
  }
});

it('says when a file cannot be watched', async () => {
  const place = join(world.directory, 'private');
  mkdirSync(place);
  chmodSync(world.directory, 0o755);
  const script = join(packageRoot(), 'test/daemon/private-library.py');
  const { program, library } = world.compiled;
  const words = [script, library, place, '/usr/bin/env', `LD_LIBRARY_PATH=${place}`, program];
  const target = await Program.start('/usr/bin/python3', words);
  try {
    await target.waitForLine(/^ready/);
    watch = watchHost(() => undefined);
    const unwatchable: string[] = [];
    const files = new WatchedFiles(watch, isAnswers, () => unwatchable.push('told'));
    files.add(onlyProcess(target.pid));
    files.add(onlyProcess(target.pid));
    expect([files.problem, unwatchable]).toEqual([constants.errno.EACCES, ['told']]);
  } finally {
    await target.end();
  }
});
