// One fix, in one unit, for libraries, programs anywhere and programs at fixed addresses, at all levels, by two compilers.
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { ask, Project, type MadeJson } from '../../fixtures/support/project.js';

const levels = ['0', '1', '2', '3'];
const kinds = ['pic', 'pie', 'fixed'];
const edits = {
  'answer.c': [
    [
      '  shared_total += value;',
      '  static int patched_calls;\n\n  shared_total += 2 * value;\n  patched_calls++;',
    ],
    ['  return value + 1;', '  return value + 100;'],
    [
      '    strcpy(buffer, "four");',
      '    fprintf(stderr, "%s", errno == 12345 ? "odd" : "");\n    snprintf(buffer, sizeof buffer, "FOUR%d", patched_calls);',
    ],
  ],
} as const;

const has = (compiler: string): boolean => spawnSync(compiler, ['--version']).status === 0;
const names = kinds.flatMap((kind) => levels.map((level) => `${kind}${level}`));

describe.each(['gcc', 'clang'])('compiled by %s', (compiler) => {
  const project = new Project('matrix');
  const programs = new Map<string, Program>();
  const answers = new Map<string, string[]>();
  let made: MadeJson;

  const askAll = async (...questions: readonly string[]): Promise<void> => {
    for (const [name, program] of programs) {
      for (const question of questions)
        answers.set(name, [...(answers.get(name) ?? []), await ask(program, question, /^answer/)]);
    }
  };

  // All processes with one command each, to save time.
  beforeAll(async () => {
    expect(has(compiler), `${compiler} is missing: run node scripts/setup.mjs --test`).toBe(true);
    const patch = project.writePatch('fix.patch', edits);
    const result = await project.patchMake(['--build', `make -j2 CC=${compiler}`, patch]);
    expect(result.exitCode, result.stdout + result.stderr).toBe(0);
    made = result.json;
    for (const name of names) programs.set(name, await project.start(name));
    const pids = [...programs.values()].map(({ pid }) => String(pid));
    await askAll('3', '4');
    const applied = await project.kcarectl('patch', ...pids, project.file('patchroot'));
    expect(applied.exitCode, applied.stdout + applied.stderr).toBe(0);
    await askAll('3', '4', '0');
    const removed = await project.kcarectl('unpatch', ...pids);
    expect(removed.exitCode, removed.stdout + removed.stderr).toBe(0);
    await askAll('4');
  });
  afterAll(() => project.remove());

  test.each(names)('%s', (name) => {
    const linked = name.startsWith('pic') ? `lib${name}.so` : name;
    const deliverable = made.deliverables.find((candidate) => candidate.name === linked);
    const replaced = deliverable?.hunks?.filter(({ kind }) => kind === 'replace').map((hunk) => hunk.name);
    // Without optimization `inlined` is a function; with it, both of its callers are replaced.
    expect(replaced?.sort()).toEqual(name.endsWith('0') ? ['answer', 'inlined'] : ['answer', 'untouched']);
    expect(answers.get(name)).toEqual([
      'answer 9 4 1 13 3',
      'answer four 5 1 17 3',
      'answer 9 103 2 23 103',
      'answer FOUR2 104 2 31 103',
      'answer null 100 2 31 103',
      'answer four 5 2 35 4',
    ]);
  });
});
