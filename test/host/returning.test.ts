// A run comes back to a process that was changed, but of which no thread could be sent into the unwinder.
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { discover, unloadAll, updateAll, type ProcessOutcome } from '../../src/host/index.js';
import { UnwindingWorkshop } from '../engine/unwinding-workshop.js';

const hasty = { waitMs: 200, dryRun: false };
const patient = { waitMs: 60_000, dryRun: false };
const workshop = new UnwindingWorkshop();
let program: Program;

beforeAll(() => workshop.build([1]));
afterEach(() => program.end());
afterAll(() => workshop.close());

/** The thread of the target is in its unwinder for this long; the run begins in that time. */
async function whileInside(run: () => Promise<ProcessOutcome[]>): Promise<ProcessOutcome> {
  program.writeLine('inside');
  await expectAnswer(/^answer /);
  setTimeout(() => program.writeLine('outside'), 700);
  const [outcome] = await run();
  if (!outcome) throw new Error('There is no outcome.');
  return outcome;
}

async function expectAnswer(answer: RegExp): Promise<void> {
  program.writeLine('answer');
  expect(await program.waitForLine(/^answer /)).toMatch(answer);
}

function update(options: typeof patient): Promise<ProcessOutcome[]> {
  const patch = workshop.patch(1);
  const { buildId } = patch.patch;
  const discovery = discover({ pids: [program.pid], wanted: (candidate) => candidate === buildId });
  return updateAll(discovery, new Map([[buildId, patch]]), options);
}

const unload = (options: typeof patient): Promise<ProcessOutcome[]> =>
  unloadAll({ ...options, pids: [program.pid] });

it('until the patch is registered, and until its memory is unmapped', async () => {
  program = await Program.start(workshop.program);
  await program.waitForLine(/^ready/);
  const before = readMappings(program.pid);

  const applied = await whileInside(() => update(patient));
  expect(applied).toMatchObject({ result: 'applied', objects: [{ objectName: 'libunit.so', level: 1 }] });
  expect(applied.unregistered).toBeUndefined();
  await expectAnswer(/42$/);

  const unloaded = await whileInside(() => unload(patient));
  expect(unloaded).toMatchObject({ result: 'unloaded', objects: [{ objectName: 'libunit.so', level: 1 }] });
  expect(unloaded.kept).toBeUndefined();
  expect(unloaded.wallMs).toBeGreaterThan(200);
  await expectAnswer(/41$/);
  expect(readMappings(program.pid)).toEqual(before);
});

it('until the time is over: then it says what is left', async () => {
  program = await Program.start(workshop.program);
  await program.waitForLine(/^ready/);
  await update(patient);
  const unloaded = await whileInside(() => unload(hasty));
  expect(unloaded).toMatchObject({ result: 'unloaded', objects: [{ level: 1 }], kept: [{ mayPass: true }] });
  await expectAnswer(/41$/);
});
