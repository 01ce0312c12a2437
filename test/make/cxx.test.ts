// C++ by two compilers at three levels: virtual calls, templates of which units hold copies, exceptions, constructors.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ask, Project } from '../../fixtures/support/project.js';

let project: Project;
beforeEach(() => void (project = new Project('shapes')));
afterEach(() => project.remove());

const edits = {
  'shapes.cc': [
    ['return side * side;', 'return side * side + made;'],
    ['return "square " +', 'return "SQUARE of " +'],
    ['side > 10', 'side > 5'],
  ],
  'shapes.h': [['best = value;', 'best = value + 1000;']],
} as const;
const variants = ['g++', 'clang++'].flatMap((compiler) =>
  ['-O0', '-O2', '-O3'].map((level) => ({ compiler, level })),
);

test.each(variants)('$compiler $level', async ({ compiler, level }) => {
  const build = `make CXX=${compiler} CXXFLAGS='${level} -g'`;
  const made = await project.patchMake(['--build', build, project.writePatch('fix.patch', edits)]);
  expect(made.exitCode, made.stdout + made.stderr).toBe(0);
  const program = await project.start('shapes');
  const pid = String(program.pid);
  expect(await ask(program, '3', /^square/)).toBe('square 3 9 17 3 3');
  const applied = await project.kcarectl('patch', pid, project.file('patchroot'));
  expect(applied.exitCode, applied.stdout + applied.stderr).toBe(0);
  expect(await ask(program, '3', /^SQUARE/)).toBe('SQUARE of 3 12 1032 1003 3');
  // Thrown in new code, caught in old.
  expect(await ask(program, '7', /caught/)).toMatch(/^SQUARE of 7 .* caught too large: 7$/);
  expect(await ask(program, '4', /^SQUARE/)).toMatch(/^SQUARE of 4 /);
  const removed = await project.kcarectl('unpatch', pid);
  expect(removed.exitCode, removed.stdout + removed.stderr).toBe(0);
  expect(await ask(program, '3', /^square/)).toBe('square 3 9 17 3 3');
  expect(await ask(program, '11', /caught/)).toMatch(/caught too large: 11$/);
});

test('a variable that needs a constructor', async () => {
  const patch = project.writePatch('fix.patch', {
    'shapes.cc': [
      ['int made = 0;', 'int made = 0;\nstd::string prefix = "a " + std::to_string(made) + " ";'],
      ['return "square " +', 'return prefix + "square " +'],
    ],
  });
  const { exitCode, json } = await project.patchMake([patch]);
  expect(exitCode).toBe(2);
  expect(json.deliverables[0]?.refusals.map(({ code }) => code)).toContain('RUN_AT_LOAD');
});
