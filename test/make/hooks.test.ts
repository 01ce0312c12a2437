// Hooks and update functions in patched sources: their order, their effect, a veto, what is refused.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { ask, Project } from '../../fixtures/support/project.js';
import { tallyEdits, tallyWith } from '../../fixtures/support/tally.js';

let project: Project;
beforeAll(() => void (project = new Project('tally')));
afterAll(() => project.remove());

const give = (program: Program, amount: number): Promise<string> => ask(program, String(amount), /^gave/);
const run = (command: string, program: Program): ReturnType<Project['kcarectl']> =>
  project.kcarectl(command, String(program.pid), ...(command === 'patch' ? [project.file('patchroot')] : []));

describe.each(['gcc', 'clang'])('compiled by %s', (compiler) => {
  test('data are brought into the new form and back, in a process with threads', async () => {
    const patch = project.writePatch('fix.patch', tallyEdits);
    const made = await project.patchMake(['--clean', '--build', `make CC=${compiler}`, patch]);
    expect(made.exitCode, made.stdout + made.stderr).toBe(0);
    const program = await project.start('tally', ['8']);
    expect(await give(program, 4)).toBe('gave 1 tally 8 0 limit 10 log ');
    expect(await give(program, 7)).toBe('gave 0 tally 8 0 limit 10 log ');
    const applied = await run('patch', program);
    expect(applied.exitCode, applied.stdout + applied.stderr).toBe(0);
    expect(await give(program, 7)).toBe('gave 1 tally 22 0 LIMIT 100 log BUA');
    // A second run finds all done.
    expect((await run('patch', program)).exitCode).toBe(0);
    expect(await give(program, 0)).toBe('gave 1 tally 22 0 LIMIT 100 log BUA');
    const removed = await run('unpatch', program);
    expect(removed.exitCode, removed.stdout + removed.stderr).toBe(0);
    expect(await give(program, 0)).toBe('gave 0 tally 22 0 limit 10 log BUAbua');
    expect((await run('patch', program)).exitCode).toBe(0);
    expect(await give(program, 0)).toBe('gave 1 tally 22 0 LIMIT 100 log BUAbuaBUA');
  });
});

/** Builds the patch, and starts a process of the program. */
async function patched(
  edits: Parameters<Project['writePatch']>[1],
  level = '1',
): Promise<ReturnType<Project['patchMake']>> {
  const patch = project.writePatch('fix.patch', edits);
  return await project.patchMake(['--clean', '--level', level, patch]);
}

test('a hook keeps the patch from being applied: nothing changes, and its result is told', async () => {
  expect((await patched(tallyEdits)).exitCode).toBe(0);
  const program = await project.start('tally');
  await ask(program, 'lock', /^tally/);
  const declined = await run('patch', program);
  expect(declined.exitCode).toBe(2);
  expect(declined.stdout + declined.stderr).toMatch(
    /check of the patch of tally returned 7, so nothing was changed/,
  );
  expect(await give(program, 1)).toBe('gave 1 tally 2 0 limit 10 log B');
  await ask(program, 'unlock', /^tally/);
  expect((await run('patch', program)).exitCode).toBe(0);
  expect(await give(program, 1)).toBe('gave 1 tally 4 0 LIMIT 100 log BBUA');
});

test('a child of fork has what its parent has, and runs no hook again', async () => {
  expect((await patched(tallyEdits)).exitCode).toBe(0);
  const program = await project.start('tally', ['2']);
  expect((await run('patch', program)).exitCode).toBe(0);
  const child = Number(/child (\d+)/.exec(await ask(program, 'fork', /^child/))?.[1]);
  await program.waitForLine(/^tally/);
  const again = await project.kcarectl('patch', String(child), project.file('patchroot'));
  expect(again.exitCode, again.stdout).toBe(0);
  expect(await give(program, 1)).toMatch(/LIMIT 100 log BUA$/);
  const removed = await project.kcarectl('unpatch', String(child));
  expect(removed.exitCode, removed.stdout).toBe(0);
  expect(await give(program, 1)).toMatch(/limit 10 log BUAbua$/);
});

test('an upgrade runs what is new, undoes what is gone, and no hook of the unload', async () => {
  expect((await patched(tallyEdits)).exitCode).toBe(0);
  const program = await project.start('tally', ['2']);
  await give(program, 4);
  expect((await run('patch', program)).exitCode).toBe(0);
  const more = tallyWith(
    (hooks) =>
      `${hooks}static void also(void) {\n  note('V');\n}\nstatic void back(void) {\n  note('v');\n}\nKCARE_UPDATE_WITH_UNDO(also, back);\n`,
  );
  expect((await patched(more, '2')).exitCode).toBe(0);
  expect((await run('patch', program)).exitCode).toBe(0);
  expect(await give(program, 0)).toBe('gave 1 tally 8 0 LIMIT 100 log BUAV');
  const plain = { 'tally.c': [['limit %d log', 'Limit %d log']] } as const;
  expect((await patched(plain, '3')).exitCode).toBe(0);
  expect((await run('patch', program)).exitCode).toBe(0);
  expect(await give(program, 0)).toBe('gave 1 tally 8 0 Limit 10 log BUAVvu');
});

test('without an undo function the patch stays: an unload says so and changes nothing', async () => {
  const edits = tallyWith((hooks) =>
    hooks
      .replace('KCARE_UPDATE_WITH_UNDO(raise, lower)', 'KCARE_UPDATE(raise)')
      .replace('static void lower', '__attribute__((unused)) static void lower'),
  );
  expect((await patched(edits)).exitCode).toBe(0);
  const program = await project.start('tally');
  expect((await run('patch', program)).exitCode).toBe(0);
  const refused = await run('unpatch', program);
  expect(refused.exitCode).toBe(2);
  expect(refused.stdout + refused.stderr).toMatch(
    /update function raise of the patch of tally has changed data, and nothing takes that back/,
  );
  expect(await give(program, 1)).toBe('gave 1 tally 2 0 LIMIT 100 log BUA');
});

test.each([
  [
    'a call of what may take locks',
    "  note('U');",
    "  note('U');\n  if (log_length == 1)\n    abort();",
    /^HOOK raise calls abort/,
  ],
  [
    'a call through a function of the file',
    'KCARE_CONVERTS(limit)',
    'static void more(void) {\n  add_counter();\n}\nKCARE_AFTER_APPLY(more);\nKCARE_CONVERTS(limit)',
    /^HOOK more calls calloc/,
  ],
  [
    'a hook that is no new function',
    'KCARE_CONVERTS(limit)',
    'KCARE_AFTER_APPLY(add_counter);\nKCARE_CONVERTS(limit)',
    /^HOOK add_counter is no new function/,
  ],
  [
    'data that no update function converts',
    'KCARE_CONVERTS(limit);',
    '',
    /^CHANGED_DATA .* of limit changed/,
  ],
  [
    'a type that no update function converts',
    'KCARE_CONVERTS(struct counter);',
    '',
    /^CHANGED_TYPE struct counter changes/,
  ],
] as const)('refused: %s', async (_, from, to, reason) => {
  const made = await patched(tallyWith((hooks) => hooks.replace(from, to)));
  expect(made.json.outcome, made.stdout + made.stderr).toBe('refused');
  const all = [...made.json.refusals, ...made.json.deliverables.flatMap(({ refusals }) => refusals)];
  expect(all.map(({ code, message }) => `${code} ${message}`)).toContainEqual(expect.stringMatching(reason));
});
