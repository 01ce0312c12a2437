// The same fix under the options that projects and distributions compile and link with.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ask, Project } from '../../fixtures/support/project.js';

let project: Project;
beforeEach(() => void (project = new Project('matrix')));
afterEach(() => project.remove());

const edits = {
  'answer.c': [
    ['  shared_total += value;', '  shared_total += 2 * value;'],
    ['strcpy(buffer, "four")', 'snprintf(buffer, sizeof buffer, "FOUR%d", calls)'],
  ],
} as const;
const options = [
  '-fcf-protection=full -gdwarf-3',
  '-fcf-protection=none -fstack-protector-all -gdwarf-5',
  '-fstack-protector-strong -D_FORTIFY_SOURCE=2 -g0 -s',
  '-gsplit-dwarf -ffunction-sections -fdata-sections -Wl,--gc-sections',
  '-fno-plt -Wl,-z,now,-z,relro,-Bsymbolic',
  '-fno-omit-frame-pointer -mno-red-zone',
];
const variants = ['gcc', 'clang'].flatMap((compiler) => options.map((flags) => ({ compiler, flags })));

test.each(variants)('$compiler $flags', async ({ compiler, flags }) => {
  const build = `make -j2 LEVELS=2 CC=${compiler} CFLAGS='${flags}'`;
  const made = await project.patchMake(['--build', build, project.writePatch('fix.patch', edits)]);
  expect(made.exitCode, made.stdout + made.stderr).toBe(0);
  expect(made.json.deliverables.map(({ name }) => name).sort()).toEqual(['fixed2', 'libpic2.so', 'pie2']);
  const programs = await Promise.all(['pic2', 'pie2', 'fixed2'].map((name) => project.start(name)));
  const pids = programs.map(({ pid }) => String(pid));
  const applied = await project.kcarectl('patch', ...pids, project.file('patchroot'));
  expect(applied.exitCode, applied.stdout + applied.stderr).toBe(0);
  for (const program of programs) {
    expect(await ask(program, '3', /^answer/)).toBe('answer 9 4 1 16 3');
    expect(await ask(program, '4', /^answer/)).toBe('answer FOUR1 5 1 24 3');
  }
  const removed = await project.kcarectl('unpatch', ...pids);
  expect(removed.exitCode, removed.stdout + removed.stderr).toBe(0);
  for (const program of programs) expect(await ask(program, '4', /^answer/)).toBe('answer four 5 1 28 3');
});
