// Several administrators and cron at once, through the server and past it: each process is changed once, nobody hangs.
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { SmallHost, untilMapped, type Inhabitant } from '../../fixtures/support/small-host.js';
import { AnswersWorld } from '../host/answers.js';
import { program, until } from './served-host.js';

let world: AnswersWorld;
let host: LocalHost;
/** The commands look at all processes: there are no others in here. */
let inside: SmallHost;
let targets: Inhabitant[];

beforeAll(async () => {
  world = new AnswersWorld();
  const patch = world.writePatchFile(world.patch(1, 43), 'level-1');
  host = await LocalHost.create(join(world.directory, 'host'), [patch]);
  inside = await SmallHost.create();
  await inside.start(program('libcare-server'), ['--root', host.root]);
  targets = [await startTarget(), await startTarget(), await startTarget(), await startTarget()];
  await until(async () => (await run('libcare-client', 'status')).exitCode === 0);
});
afterAll(async () => {
  await inside.end();
  world.remove();
});

async function startTarget(): Promise<Inhabitant> {
  const target = await inside.start(world.compiled.program);
  await untilMapped(target.outerPid, world.compiled.library);
  await target.program.waitForLine(/^ready/);
  return target;
}

const run = (name: string, ...parameters: readonly string[]): Promise<CommandResult> =>
  inside.run(program(name), ['--root', host.root, ...parameters]);

const answers = (): Promise<string[]> => Promise.all(targets.map((target) => world.answer(target.program)));

/** Runs all at once; returns what each said of each target that it did, "applied" for example, in the order of the targets. */
async function atOnce(commands: readonly (readonly [string, ...string[]])[]): Promise<string[][]> {
  const results = await Promise.all(
    commands.map(([name, ...words]) => run(name, ...words, '--wait', '600', '--json')),
  );
  for (const { exitCode, stdout, stderr } of results) {
    expect({ exitCode, stderr }, stdout).toEqual({ exitCode: 0, stderr: '' });
  }
  const said = results.map(
    ({ stdout }) => JSON.parse(stdout) as { processes: readonly { pid: number; result: string }[] },
  );
  return targets.map(({ pid }) =>
    said
      .flatMap(({ processes }) => processes.filter((one) => one.pid === pid).map(({ result }) => result))
      .sort(),
  );
}

const updates = [
  ['kcarectl', '--lib-update'],
  ['libcare-client', 'update'],
  ['kcarectl', '--lib-auto-update', '--no-jitter'],
  ['kcarectl', '--lib-update'],
  ['libcare-client', 'update'],
] as const;

/** How many processes the server has patched by itself, as newcomers. */
async function patchedByServer(): Promise<number> {
  const { watch } = JSON.parse((await run('libcare-client', 'status')).stdout) as {
    watch: { counts: { patched: number } };
  };
  return watch.counts.patched;
}

/** Each target was changed by one of the runs, or by the server that looks after new processes, and found so by the others. */
async function expectOnce(results: string[][], changed: string, byServerBefore: number): Promise<void> {
  for (const target of results) {
    expect(target.filter((result) => result !== changed && result !== 'unchanged')).toEqual([]);
    expect(target.filter((result) => result === changed).length).toBeLessThanOrEqual(1);
  }
  const byRuns = results.flat().filter((result) => result === changed).length;
  await until(async () => byRuns + (await patchedByServer()) - byServerBefore === targets.length);
}

it('updates at once patch each process once', async () => {
  const before = await patchedByServer();
  await expectOnce(await atOnce(updates), 'applied', before);
  expect(await answers()).toEqual(targets.map(() => 'answer 43'));
});

it('updates at once to a newer level upgrade each process once', async () => {
  const before = await patchedByServer();
  await host.publish([world.writePatchFile(world.patch(2, 44), 'level-2')]);
  await expectOnce(await atOnce(updates), 'upgraded', before);
  expect(await answers()).toEqual(targets.map(() => 'answer 44'));
  const info = JSON.parse((await run('kcarectl', '--lib-info')).stdout) as { result: readonly object[] };
  for (const { pid } of targets)
    expect(info.result).toContainEqual(
      expect.objectContaining({ pid, objects: [expect.objectContaining({ state: 'active', patchlvl: 2 })] }),
    );
});

it('updates at once with processes that begin patch these once as well', async () => {
  const before = await patchedByServer();
  const known = targets;
  const [said, ...begun] = await Promise.all([atOnce(updates), startTarget(), startTarget(), startTarget()]);
  expect(said.flat().filter((result) => result !== 'unchanged')).toEqual([]);
  targets = begun;
  // Those that no run came to, and the server has not come to yet.
  const last = await atOnce([['kcarectl', '--lib-update']]);
  expect(last.flat().filter((result) => !['applied', 'unchanged'].includes(result))).toEqual([]);
  expect((await patchedByServer()) - before).toBeLessThanOrEqual(begun.length);
  targets = [...known, ...begun];
  expect(await answers()).toEqual(targets.map(() => 'answer 44'));
});

it('updates and unloads at once leave each process wholly the one or the other', async () => {
  await atOnce([
    ['kcarectl', '--lib-unload'],
    ['libcare-client', 'update'],
    ['libcare-client', 'unload'],
    ['kcarectl', '--lib-update'],
  ]);
  const after = await answers();
  // Runs come one after the other: the last one decides for all.
  expect([...new Set(after)]).toHaveLength(1);
  expect(['answer 42', 'answer 44']).toContain(after[0]);
  const unloads = await atOnce([
    ['kcarectl', '--lib-unload'],
    ['libcare-client', 'unload'],
  ]);
  expect(unloads).toEqual(targets.map(() => (after[0] === 'answer 42' ? [] : ['unloaded'])));
  expect(await answers()).toEqual(targets.map(() => 'answer 42'));
});
