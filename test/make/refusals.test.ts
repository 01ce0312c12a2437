// Whole projects that cannot be patched: the reason, what helps, and no patch left.
import fs from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { wayOutOf } from '../../src/build/index.js';
import { Project } from '../../fixtures/support/project.js';

let project: Project;
beforeEach(() => void (project = new Project('matrix')));
afterEach(() => project.remove());

type Edits = Parameters<Project['writePatch']>[1];
const harmless: Edits = { 'answer.c': [['  return value + 1;', '  return value + 100;']] };

const cases: readonly { what: string; code: string; message: RegExp; flags?: string; edits?: Edits }[] = [
  {
    what: 'link-time optimization',
    code: 'LINK_TIME_OPTIMIZATION',
    message: /^answer\.c is compiled with -flto$/,
    flags: '-flto=auto',
  },
  {
    what: 'link-time optimization by clang',
    code: 'LINK_TIME_OPTIMIZATION',
    message: /^answer\.c is compiled with -flto$/,
    flags: '-flto=thin',
  },
  {
    what: 'another linker',
    code: 'LINK_UNKNOWN',
    message: /^libpic2\.so was not linked by the GNU linker/,
    flags: '-fuse-ld=gold',
  },
  {
    what: 'no unwind tables',
    code: 'UNWIND_TABLE',
    message: /^answer has no unwind entry$/,
    flags: '-fno-asynchronous-unwind-tables -fno-unwind-tables',
  },
  {
    what: 'a source file that only the patches have',
    code: 'NEW_SOURCE',
    message: /^more\.c is compiled only with the patches/,
    edits: {
      'more.c': [['', 'int more(int value) {\n  return value * 2;\n}\n']],
      Makefile: [
        ['-fPIC -shared -o $@ answer.c', '-fPIC -shared -o $@ answer.c more.c'],
        ['libpic%.so: answer.c', 'libpic%.so: more.c answer.c'],
      ],
    },
  },
  {
    what: 'another initial value',
    code: 'CHANGED_DATA',
    message: /^initial contents or size of the data of shared_total changed/,
    edits: { 'answer.c': [['shared_total = 10', 'shared_total = 11']] },
  },
  {
    what: 'another parameter of a function that others call',
    code: 'CHANGED_SIGNATURE',
    message: /^untouched of answer\.c takes or gives something else than before/,
    edits: {
      'answer.h': [['int untouched(int value);', 'int untouched(int value, int more);']],
      'answer.c': [
        ['int untouched(int value) {', 'int untouched(int value, int more) {'],
        ['  return inlined(value) + calls;', '  return inlined(value) + calls + more;'],
      ],
      'main.c': [['untouched(1)', 'untouched(1, 2)']],
    },
  },
  {
    what: 'the address of a new function given away',
    code: 'UNRESOLVED_SYMBOL',
    message: /new_handler/,
    edits: {
      'answer.c': [
        [
          'int untouched(int value) {',
          'static void new_handler(int signal) {\n  calls += signal;\n}\n\nint untouched(int value) {\n  signal(10, new_handler);',
        ],
        ['#include <errno.h>', '#include <errno.h>\n#include <signal.h>'],
      ],
    },
  },
];

test.each(cases)('$what: $code', async ({ code, message, flags = '', edits = harmless }) => {
  const compiler = flags.includes('thin') ? 'clang' : 'gcc';
  const build = `make LEVELS=2 CC=${compiler} CFLAGS='${flags}'`;
  const { exitCode, json } = await project.patchMake([
    '--build',
    build,
    project.writePatch('fix.patch', edits),
  ]);
  expect(exitCode).toBe(2);
  const refusals = [...json.refusals, ...json.deliverables.flatMap((deliverable) => deliverable.refusals)];
  expect(refusals).toContainEqual(
    expect.objectContaining({ code, message: expect.stringMatching(message) as string }),
  );
  for (const refusal of refusals)
    expect(refusal).toMatchObject({ help: wayOutOf(refusal.code as Parameters<typeof wayOutOf>[0]) });
  expect(fs.existsSync(project.file('patchroot'))).toBe(false);
  expect(json.notes).toEqual([]);
});
