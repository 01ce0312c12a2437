// Discovery and runs over several real processes.
import { readdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { remoteAddress } from '../../src/base/address.js';
import type { PatchToApply } from '../../src/engine/index.js';
import { IntentJournal } from '../../src/engine/intents.js';
import {
  Blacklist,
  discover,
  infoAll,
  unloadAll,
  updateAll,
  type ProcessOutcome,
} from '../../src/host/index.js';
import type { Patch } from '../../src/patchfile/index.js';
import { released } from '../../fixtures/support/handmade.js';
import { AnswersWorld } from './answers.js';

const atOnce = { waitMs: 0, dryRun: false };
let world: AnswersWorld;

beforeAll(() => {
  world = new AnswersWorld();
});
afterEach(() => world.end());
afterAll(() => world.remove());

const byBuildId = (patch: Patch): ReadonlyMap<string, PatchToApply> =>
  new Map([[patch.buildId, released(patch)]]);
const pidsOf = (programs: readonly Program[]): number[] => programs.map(({ pid }) => pid);

function find(
  programs: readonly Program[],
  patch: Patch,
  blacklist = Blacklist.empty,
): ReturnType<typeof discover> {
  return discover({ pids: pidsOf(programs), blacklist, wanted: (buildId) => buildId === patch.buildId });
}

const resultOf = (outcomes: readonly ProcessOutcome[], program: Program): string | undefined =>
  outcomes.find(({ pid }) => pid === program.pid)?.result;

it('finds the processes that run an object, also when its file and program are deleted', async () => {
  const patch = world.patch(1, 43);
  const plain = await world.start();
  const renamed = await world.start('other name');
  rmSync(`${world.directory}/other name`);
  const { processes, unreadable } = find([plain, renamed], patch);
  expect(unreadable).toEqual([]);
  expect(processes).toMatchObject([
    { pid: plain.pid, comm: 'target', executable: world.compiled.program },
    { pid: renamed.pid, comm: 'other name', executable: `${world.directory}/other name` },
  ]);
  expect(discover({ pids: [plain.pid], wanted: () => false }).processes).toEqual([]);
});

it('leaves kcare itself out, and says when a named process is gone', async () => {
  const program = await world.start();
  await program.end();
  const { processes, unreadable } = discover({ pids: [process.pid, program.pid] });
  expect(processes).toEqual([]);
  expect(unreadable).toMatchObject([{ pid: program.pid, error: { code: 'TARGET_GONE' } }]);
});

it('finds it among all processes of the host, whatever those are', async () => {
  const patch = world.patch(1, 43);
  const program = await world.start();
  const { processes } = discover({ wanted: (buildId) => buildId === patch.buildId });
  expect(processes.map(({ pid }) => pid)).toContain(program.pid);
  expect(processes.map(({ pid }) => pid)).not.toContain(process.pid);
});

it('patches all but the blacklisted, changes nothing twice, upgrades, and unloads', async () => {
  const programs = [await world.start(), await world.start(), await world.start('gdb')];
  const [first, second, debuggerLike] = programs as [Program, Program, Program];
  const patch = world.patch(1, 43);
  const blacklist = Blacklist.parse('filename:gdb # debugger', '/list');
  const outcomes = await updateAll(find(programs, patch, blacklist), byBuildId(patch), atOnce);
  expect(outcomes.map(({ pid }) => pid)).toEqual(pidsOf(programs).sort((left, right) => left - right));
  expect([first, second, debuggerLike].map((program) => resultOf(outcomes, program))).toEqual([
    'applied',
    'applied',
    'blacklisted',
  ]);
  expect(outcomes.find(({ pid }) => pid === debuggerLike.pid)).toMatchObject({
    rule: { file: '/list', line: 1, reason: 'debugger' },
    objects: [],
  });
  expect(await Promise.all(programs.map((program) => world.answer(program)))).toEqual([
    'answer 43',
    'answer 43',
    'answer 42',
  ]);
  const again = await updateAll(find(programs, patch, blacklist), byBuildId(patch), atOnce);
  expect([first, second].map((program) => resultOf(again, program))).toEqual(['unchanged', 'unchanged']);
  const next = world.patch(2, 44);
  const upgrade = await updateAll(find(programs, next, blacklist), byBuildId(next), atOnce);
  expect([first, second].map((program) => resultOf(upgrade, program))).toEqual(['upgraded', 'upgraded']);
  expect(
    infoAll({ pids: pidsOf(programs) })
      .processes.map(({ pid }) => pid)
      .sort(),
  ).toEqual([first.pid, second.pid].sort());
  const unload = await unloadAll({ ...atOnce, pids: pidsOf(programs) });
  expect(unload.map(({ result, objects }) => [result, objects[0]?.objectName])).toEqual([
    ['unloaded', 'libanswers.so'],
    ['unloaded', 'libanswers.so'],
  ]);
  expect(await world.answer(first)).toBe('answer 42');
  expect(infoAll({ pids: pidsOf(programs) }).processes).toEqual([]);
});

it('says with a dry run what would happen, and touches nothing', async () => {
  const program = await world.start();
  const patch = world.patch(1, 43);
  const outcomes = await updateAll(find([program], patch), byBuildId(patch), { waitMs: 0, dryRun: true });
  expect(outcomes).toMatchObject([
    { result: 'would-apply', objects: [{ objectName: 'libanswers.so', level: 1 }] },
  ]);
  expect(infoAll({ pids: [program.pid] }).processes).toEqual([]);
  expect(await world.answer(program)).toBe('answer 42');
});

it('comes back to a busy process while the others are patched, until it is free', async () => {
  const blocked = await world.startBlocked();
  const free = await world.start();
  const patch = world.blocker(1);
  const programs = [blocked, free];
  const given = await updateAll(find(programs, patch), byBuildId(patch), { waitMs: 300, dryRun: false });
  expect([resultOf(given, blocked), resultOf(given, free)]).toEqual(['busy', 'applied']);
  expect(given.find(({ pid }) => pid === blocked.pid)?.error?.message).toContain('wait_inside');
  setTimeout(() => blocked.writeLine('open'), 400);
  const patient = await updateAll(find(programs, patch), byBuildId(patch), { waitMs: 20_000, dryRun: false });
  expect([resultOf(patient, blocked), resultOf(patient, free)]).toEqual(['applied', 'unchanged']);
});

it('reports a process that ended between discovery and patching as gone (R11)', async () => {
  const program = await world.start();
  const patch = world.patch(1, 43);
  const discovery = find([program], patch);
  await program.end();
  expect(await updateAll(discovery, byBuildId(patch), atOnce)).toMatchObject([
    { pid: program.pid, result: 'gone' },
  ]);
});

it('brings a process in order in which a patcher died while it mapped an image, and forgets those that ended', async () => {
  const intentDirectory = join(world.directory, 'intents');
  const programs = [await world.start(), await world.start()];
  const journal = await IntentJournal.open(intentDirectory);
  await journal.prepare();
  const died = new Error('died');
  for (const { pid } of programs) {
    const intent = { pid, start: remoteAddress(0x1000_0000_0000n), size: 4096, header: new Uint8Array(1) };
    const die = (descriptor: number): never => {
      writeSync(descriptor, '1', 0);
      throw died;
    };
    expect(() => journal.during(intent, die)).toThrow(died);
  }
  const [first, second] = programs;
  await second?.end();
  expect(await unloadAll({ ...atOnce, intentDirectory, pids: [first?.pid ?? 0] })).toEqual([]);
  expect(readdirSync(intentDirectory)).toEqual([]);
});
