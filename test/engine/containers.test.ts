// R1: a patcher on the host and one inside of a container work on the same process, and never at the same moment.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { SmallHost, type Inhabitant } from '../../fixtures/support/small-host.js';
import { apply } from '../../src/engine/index.js';
import { AnswersWorld } from '../host/answers.js';
import { released } from '../../fixtures/support/handmade.js';

const rival = join(import.meta.dirname, 'rival.mjs');
const rounds = '40';
let world: AnswersWorld;
let container: SmallHost;
let target: Inhabitant;
let intents: string;

beforeAll(async () => {
  world = new AnswersWorld();
  container = await SmallHost.create();
  expect(await shell('mount -t tmpfs -o mode=755 kcare-test /run')).toMatchObject({ exitCode: 0 });
  target = await container.start(world.compiled.program);
  await target.program.waitForLine(/^ready/);
  intents = join(world.directory, 'intents');
  mkdirSync(intents);
});
beforeEach(() => shell('rm -rf /run/kcare'));
afterAll(async () => {
  await container.end();
  world.remove();
});

const shell = (command: string): ReturnType<SmallHost['run']> => container.run('sh', ['-c', command]);

it('each makes its changes as a whole, and the process goes on', async () => {
  // As any earlier patcher inside has left it.
  await shell('mkdir -p /run/kcare/intents && umask 077 && : > /run/kcare/intents.lock');
  const inside = world.writePatchFile(world.patch(1, 43), 'inside');
  const outside = world.writePatchFile(world.patch(1, 44), 'outside');
  const [here, there] = await Promise.all([
    promisify(execFile)(process.execPath, [rival, `${target.outerPid}`, outside, rounds, intents]),
    container.run(process.execPath, [rival, `${target.pid}`, inside, rounds]),
  ]);
  for (const { stdout, stderr } of [here, there]) {
    expect(stderr).toBe('');
    const tally = JSON.parse(stdout) as Record<string, number>;
    // `upgraded`: the other patch was in place; `unchanged`: the other has taken it out already.
    expect(['applied', 'upgraded', 'unloaded', 'unchanged']).toEqual(
      expect.arrayContaining(Object.keys(tally)),
    );
  }
  expect(await world.answer(target.program)).toBe('answer 42');
});

it.each([
  ['a pipe', 'mkdir -p /run/kcare && mkfifo /run/kcare/intents.lock'],
  ['a link', 'mkdir -p /run/kcare && ln -s /etc/hostname /run/kcare/intents.lock'],
  ['a directory that is a link', 'ln -s /tmp /run/kcare'],
  ['a device', 'mkdir -p /run/kcare && mknod /run/kcare/intents.lock c 1 3'],
])('a container that lays %s in the place of its locks keeps nobody from patching', async (_, command) => {
  expect(await shell(command)).toMatchObject({ exitCode: 0 });
  const options = { waitMs: 60_000, dryRun: false, intentDirectory: intents };
  const { result } = await apply(target.outerPid, [released(world.patch(1, 44))], options);
  expect(['applied', 'unchanged']).toContain(result);
  expect(existsSync('/tmp/intents.lock')).toBe(false);
});
