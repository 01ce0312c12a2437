// Types whose layout a source patch changes: refused where processes may hold values of them, with fields and users named.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ask, Project } from '../../fixtures/support/project.js';

type Edits = Parameters<Project['writePatch']>[1];

let project: Project;
beforeAll(() => void (project = new Project('boxes')));
afterAll(() => project.remove());

let count = 0;

async function problemsOf(edits: Edits, compiler: string): Promise<readonly string[]> {
  const patch = project.writePatch(`fix${count++}.patch`, edits);
  const made = await project.patchMake(['--clean', '--build', `make CC=${compiler}`, patch]);
  const { outcome, refusals, deliverables } = made.json;
  expect(outcome, made.stdout + made.stderr).toBe('refused');
  return [...refusals, ...deliverables.flatMap((deliverable) => deliverable.refusals)].map(
    ({ code, message }) => `${code} ${message}`,
  );
}

describe.each(['gcc', 'clang'])('compiled by %s', (compiler) => {
  test('a structure in a list that grows: what changes, and which unchanged functions use it', async () => {
    const edits = {
      'box.h': [['  struct box* next;\n', '  struct box* next;\n  int depth;\n']],
      'box.c': [['  box->height = height;\n', '  box->height = height;\n  box->depth = 1;\n']],
    } as const;
    expect(await problemsOf(edits, compiler)).toEqual([
      expect.stringMatching(
        /^CHANGED_TYPE struct box changes \(16 bytes become 24, field depth is new\) and unchanged code uses it: measure, first_width; running processes may hold values of the old layout: .*variable boxes/,
      ),
    ]);
  });

  test('fields that change their places', async () => {
    const edits = {
      'box.h': [['  int width;\n  int height;\n', '  int height;\n  int width;\n']],
    } as const;
    // Every function that names a field changes, and boxes of the old layout stay in the list.
    expect(await problemsOf(edits, compiler)).toEqual([
      expect.stringMatching(
        /^CHANGED_TYPE struct box changes \(field width is at byte 4 instead of byte 0, field height is at byte 0 instead of byte 4\) and running processes may hold values of the old layout: .*variable boxes/,
      ),
    ]);
  });

  test('an enumeration whose values change, with a variable of it; an array that grows in a union', async () => {
    const edits = {
      'box.h': [['enum side { LEFT, RIGHT }', 'enum side { NONE, LEFT, RIGHT }']],
      'box.c': [['  int rest[2];', '  int rest[3];']],
    } as const;
    const problems = (await problemsOf(edits, compiler)).toSorted();
    expect(problems).toEqual([
      expect.stringMatching(/^CHANGED_DATA initial contents or size of the data of amounts/),
      expect.stringMatching(/^CHANGED_DATA initial contents or size of the data of last_side/),
      expect.stringMatching(
        /^CHANGED_TYPE amount changes \(8 bytes become 12, field rest has 12 bytes instead of 8 bytes\)/,
      ),
      expect.stringMatching(
        /^CHANGED_TYPE enum side changes \(LEFT is 1 instead of 0, RIGHT is 2 instead of 1\) and .*variable last_side/,
      ),
    ]);
  });
});

test('a structure that lives on the stacks of replaced functions only', async () => {
  const patch = project.writePatch('stack.patch', {
    'box.c': [
      ['  int from;\n  int to;\n', '  int from;\n  int to;\n  int scale;\n'],
      ['range->to - range->from', '(range->to - range->from) * range->scale'],
      ['{from, to};', '{from, to, 10};'],
    ],
  });
  const made = await project.patchMake(['--clean', patch]);
  expect(made.json.outcome, made.stdout).toBe('built');
  const program = await project.start('boxes');
  expect(await ask(program, '', /^boxes/)).toBe('boxes 3 4 7 3');
  const applied = await project.kcarectl('patch', String(program.pid), project.file('patchroot'));
  expect(applied.exitCode, applied.stdout).toBe(0);
  expect(await ask(program, '', /^boxes/)).toBe('boxes 3 4 70 3');
});

test('a new enumerator at the end, and a field that only changes its sign', async () => {
  const patch = project.writePatch('same.patch', {
    'box.h': [
      ['LEFT, RIGHT', 'LEFT, RIGHT, NONE'],
      ['  int height', '  unsigned height'],
    ],
    'box.c': [['  int sum = 0;', '  int sum = 1000;']],
  });
  const made = await project.patchMake(['--clean', patch]);
  expect(made.json.outcome, made.stdout).toBe('built');
});
