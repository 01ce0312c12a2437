// For each real process: patched, pending, excluded, unpatchable or not needed, why and since when.
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { released } from '../../fixtures/support/handmade.js';
import {
  Blacklist,
  countStates,
  discover,
  readOutcomes,
  recordOutcomes,
  surveyCoverage,
  unloadAll,
  updateAll,
  type KnownPatches,
  type ProcessCoverage,
  type ProcessOutcome,
} from '../../src/host/index.js';
import { parseOutcomes } from '../../src/host/outcome-records.js';
import type { Patch } from '../../src/patchfile/index.js';
import { random } from '../random.js';
import { AnswersWorld } from './answers.js';

const atOnce = { waitMs: 0, dryRun: false };
const patchset = 'U20261122_01';
let world: AnswersWorld;
let directory: string;

beforeAll(() => {
  world = new AnswersWorld();
  directory = mkdtempSync(join(tmpdir(), 'kcare-coverage-'));
});
afterEach(() => world.end());
afterAll(() => {
  world.remove();
  rmSync(directory, { recursive: true, force: true });
});

function known(patch: Patch, level = 1, releasedAt?: Date): KnownPatches {
  const patches = [{ buildId: patch.buildId, level, objectName: 'libanswers.so' }];
  return { patchset, released: releasedAt, patches };
}

async function update(
  patch: Patch,
  programs: readonly Program[],
  options = atOnce,
): Promise<ProcessOutcome[]> {
  const discovery = discover({
    pids: programs.map(({ pid }) => pid),
    wanted: (id) => id === patch.buildId,
  });
  return await updateAll(discovery, new Map([[patch.buildId, released(patch)]]), options);
}

/** The same patch for a library in which other bytes stand at every hunk. */
function withForeignBytes(patch: Patch): Patch {
  const hunks = patch.hunks.map((hunk) => ({ ...hunk, original: hunk.original.map((byte) => byte ^ 1) }));
  return { ...patch, hunks };
}

function one(program: Program, options: Parameters<typeof surveyCoverage>[0]): ProcessCoverage | undefined {
  const { processes, unreadable } = surveyCoverage({ ...options, pids: [program.pid] });
  expect(unreadable).toEqual([]);
  return processes[0];
}

it('is pending from the start of the process or the release of the patch on, then patched, then pending again', async () => {
  const before = Date.now();
  const program = await world.start();
  const patch = world.patch(1, 43);
  const { buildId } = patch;
  const waiting = one(program, { known: known(patch, 1, new Date(0)) });
  expect(waiting).toMatchObject({
    pid: program.pid,
    comm: 'target',
    executable: world.compiled.program,
    state: 'pending',
    images: [],
    missing: [{ objectName: 'libanswers.so', buildId, level: 1 }],
    reason: 'No update has come to it yet.',
  });
  // The start is known to 10 ms.
  expect(waiting?.since?.getTime()).toBeGreaterThanOrEqual(before - 100);
  expect(waiting?.since?.getTime()).toBeLessThanOrEqual(Date.now());
  const tomorrow = new Date(Date.now() + 86_400_000);
  expect(one(program, { known: known(patch, 1, tomorrow) })?.since).toEqual(tomorrow);
  await update(patch, [program]);
  const patched = one(program, { known: known(patch) });
  expect(patched).toMatchObject({ state: 'patched', reason: '', missing: [], images: [{ level: 1 }] });
  expect(patched?.since).toBeUndefined();
  expect(one(program, { known: known(patch, 2) })).toMatchObject({
    state: 'pending',
    images: [{ level: 1 }],
    missing: [{ level: 2 }],
    reason: 'Level 1 of libanswers.so is applied, level 2 is not.',
  });
  expect(one(program, {})).toMatchObject({ state: 'patched' });
  await unloadAll({ ...atOnce, pids: [program.pid] });
  expect(one(program, { known: known(patch) })?.state).toBe('pending');
  expect(one(program, {})).toBeUndefined();
});

it('is excluded by a line of the blacklist, which is named', async () => {
  const program = await world.start('gdb');
  const patch = world.patch(1, 43);
  const blacklist = Blacklist.parse('\nfilename:gdb # debugger', '/list');
  expect(one(program, { known: known(patch), blacklist })).toMatchObject({
    state: 'excluded',
    reason: 'Blacklisted by "filename:gdb" (debugger), line 2 of /list.',
    rule: { file: '/list', line: 2, text: 'filename:gdb', reason: 'debugger' },
  });
});

it('is not needed where the library is of a build without a patch, and silent about all others', async () => {
  const program = await world.start();
  const patch = world.patch(1, 43);
  const other = known({ ...patch, buildId: 'ab'.repeat(20) });
  expect(one(program, { known: other })).toMatchObject({
    state: 'not-needed',
    reason: `Patchset ${patchset} has no patch for its build of libanswers.so.`,
  });
  const unrelated = {
    ...other,
    patches: other.patches.map((one) => ({ ...one, objectName: 'libother.so' })),
  };
  expect(one(program, { known: unrelated })).toBeUndefined();
});

it('says what the last run said: busy is pending since the first time, refused is unpatchable', async () => {
  const file = join(directory, 'outcomes.json');
  const blocked = await world.startBlocked();
  const refused = await world.start();
  const blocker = world.blocker(1);
  const foreign = withForeignBytes(blocker);
  const first = new Date('2026-11-22T10:00:00.000Z');
  const outcomes = [...(await update(blocker, [blocked])), ...(await update(foreign, [refused]))];
  expect(outcomes.map(({ result }) => result)).toEqual(['busy', 'refused']);
  await recordOutcomes(file, outcomes, { patchset, now: first });
  expect(statSync(file).mode & 0o777).toBe(0o644);
  const later = new Date('2026-11-22T14:00:00.000Z');
  await recordOutcomes(file, await update(blocker, [blocked]), { patchset, now: later });
  const survey = surveyCoverage({
    pids: [blocked.pid, refused.pid],
    known: known(blocker),
    outcomes: await readOutcomes(file),
  });
  expect(survey.processes).toMatchObject([
    {
      state: 'pending',
      code: 'TARGET_BUSY',
      reason: expect.stringContaining('wait_inside') as string,
      since: first,
    },
    { state: 'unpatchable', code: 'BYTES_MISMATCH', since: first },
  ]);
  expect(countStates(survey.processes)).toEqual({
    patched: 0,
    pending: 1,
    excluded: 0,
    unpatchable: 1,
    'not-needed': 0,
  });
  // What was said of one patchset is not said of the next.
  const next = { ...known(blocker), patchset: 'U20261123_01' };
  expect(one(refused, { known: next, outcomes: await readOutcomes(file) })).toMatchObject({
    state: 'pending',
    since: first,
    reason: 'No update has come to it yet.',
  });
  blocked.writeLine('open');
  const patient = { ...atOnce, waitMs: 60_000 };
  expect((await update(blocker, [blocked], patient)).map(({ result }) => result)).toEqual(['applied']);
  await recordOutcomes(file, [{ pid: blocked.pid, comm: '', result: 'applied', objects: [], wallMs: 0 }], {
    patchset,
    now: later,
  });
  expect([...(await readOutcomes(file)).keys()]).toEqual([refused.pid]);
  const unloaded = await unloadAll({ ...atOnce, pids: [blocked.pid] });
  await recordOutcomes(file, unloaded, { patchset: '', now: later, isUnload: true });
  expect(one(blocked, { known: known(blocker), outcomes: await readOutcomes(file) })).toMatchObject({
    state: 'pending',
    reason: 'Its patches were taken out at 2026-11-22T14:00:00.000Z.',
    since: later,
  });
  await refused.end();
  expect([...(await readOutcomes(file)).keys()]).toEqual([blocked.pid]);
});

it('takes a damaged note for none, and refuses one that others could write (R10)', async () => {
  const file = join(directory, 'damaged.json');
  expect(await readOutcomes(file)).toEqual(new Map());
  const program = await world.start();
  const busy: ProcessOutcome = { pid: program.pid, comm: '', result: 'busy', objects: [], wallMs: 0 };
  await recordOutcomes(file, [busy], { patchset, now: new Date() });
  const bytes = readFileSync(file);
  expect(parseOutcomes(bytes)).toHaveLength(1);
  const next = random(11);
  for (let round = 0; round < 2000; round++) {
    const damaged = Buffer.from(bytes);
    for (let count = 0; count <= next() % 4; count++) damaged[next() % damaged.length] = next() & 0xff;
    parseOutcomes(damaged.subarray(0, next() % 3 === 0 ? next() % damaged.length : undefined));
  }
  writeFileSync(file, '{"version":1,"processes":[{"pid":"1"}]}');
  expect(await readOutcomes(file)).toEqual(new Map());
  writeFileSync(file, bytes, { mode: 0o666 });
  chmodSync(file, 0o666);
  await expect(readOutcomes(file)).rejects.toMatchObject({ code: 'UNSAFE_MODE' });
});
