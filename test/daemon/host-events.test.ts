// What the daemon hears of the host: beginnings that never pause, and files of processes that ended before they were marked.
import { spawn, type ChildProcess } from 'node:child_process';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { watchHost, type HostWatch } from '../../src/addon/host.js';
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
  const files = new WatchedFiles(watch, () => true);
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
