// Whole projects as people have them: recursive make, static archives, headers, C++, CMake, libcare-cc; files stay as they were.
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Program } from '../../fixtures/support/program.js';
import { ask, Project, type MadeJson } from '../../fixtures/support/project.js';

const replacedIn = ({ deliverables }: MadeJson): Record<string, string[]> =>
  Object.fromEntries(
    deliverables.map(({ name, hunks = [] }) => [
      name,
      hunks.filter(({ kind }) => kind === 'replace').map((hunk) => hunk.name),
    ]),
  );

let project: Project;
const scaled = { 'lib/scale.c': [['* 10', '* 100']] } as const;

/** Applies what was made, and takes it back after `check`. */
async function whilePatched(program: Program, directory: string, check: () => Promise<void>): Promise<void> {
  const pid = String(program.pid);
  const applied = await project.kcarectl('patch', pid, path.join(directory, 'patchroot'));
  expect(applied.exitCode, applied.stdout + applied.stderr).toBe(0);
  await check();
  const removed = await project.kcarectl('unpatch', pid);
  expect(removed.exitCode, removed.stdout + removed.stderr).toBe(0);
}

describe('a library, a static archive and two programs, by recursive make', () => {
  beforeEach(() => void (project = new Project('calc')));
  afterEach(() => project.remove());

  const calc = {
    'lib/calc.c': [
      ['  return value * 2;', '  if (value > 1000)\n    return printf("big\\n");\n  return value * 2 + 1;'],
    ],
  } as const;

  test('one patch for each deliverable; only the changed function, although lines move', async () => {
    const { exitCode, json, stderr } = await project.patchMake([
      project.writePatch('CVE-2026-1234.patch', calc),
    ]);
    expect(exitCode, stderr).toBe(0);
    expect(replacedIn(json)).toEqual({ 'lib/libcalc.so': ['calc'], 'src/static': ['calc'] });
    expect(json.deliverables.map(({ cves }) => cves)).toEqual([['CVE-2026-1234'], ['CVE-2026-1234']]);
    expect(fs.readdirSync(project.file('patchroot')).sort()).toEqual(
      json.deliverables.map(({ buildId }) => `${buildId}.kpatch`).sort(),
    );
    for (const name of ['src/static', 'src/shared']) {
      const program = await project.start(name);
      expect(await ask(program, '', /^calc/)).toBe('calc 42 5 80');
      await whilePatched(program, project.directory, async () => {
        expect(await ask(program, '', /^calc/)).toBe('calc 43 6 80');
        const info = await project.kcarectl('info', String(program.pid));
        expect(info.stdout).toMatch(
          /level 1 of local, active\n {4}CVE-2026-1234\.patch\n {4}fixes CVE-2026-1234\n {4}replaces calc at 0x/,
        );
      });
      expect(await ask(program, '', /^calc/)).toBe('calc 42 7 80');
    }
  });

  test('a header that no makefile knows of: all units that include it, inlined functions included', async () => {
    const patch = project.writePatch('fix.patch', {
      'lib/calc.h': [['return value + 7;', 'return value + 70;']],
    });
    const { exitCode, json } = await project.patchMake(['--build', 'make -j2', patch]);
    expect(exitCode).toBe(0);
    expect(replacedIn(json)).toEqual({ 'lib/libcalc.so': ['scale'], 'src/static': ['scale'] });
    const program = await project.start('src/static');
    await whilePatched(program, project.directory, async () => {
      expect(await ask(program, '', /^calc/)).toBe('calc 42 5 710');
    });
  });

  test('leaves every file as it was, and running processes their files', async () => {
    project.run('make');
    const before = project.contents();
    const running = await project.start('src/shared');
    const { exitCode, stderr } = await project.patchMake(['--clean', project.writePatch('fix.patch', calc)]);
    expect(exitCode, stderr).toBe(0);
    // Cleaned and built anew, from the same sources: the same bytes under the same names.
    const bytes = (contents: Record<string, string>): string[] =>
      Object.entries(contents).map(([name, text]) => `${name} ${text.split(' ').at(-1) ?? ''}`);
    expect(bytes(project.contents())).toEqual(bytes(before));
    const built = project.contents();
    const again = await project.patchMake([project.writePatch('fix.patch', calc)]);
    expect(again.exitCode).toBe(0);
    expect(project.contents()).toEqual(built);
    // Linked again to the same build-ids, so the patch fits the process that was there before.
    await whilePatched(running, project.directory, async () => {
      expect(await ask(running, '', /^calc/)).toBe('calc 43 5 80');
    });
  });

  test('--update takes the recorded build; without a record it says what to do', async () => {
    const patch = project.writePatch('fix.patch', calc);
    const early = await project.patchMake(['--update', patch]);
    expect(early.exitCode).toBe(1);
    expect(early.json).toMatchObject({ error: { code: 'NOTHING_RECORDED' } });
    expect((await project.patchMake([patch])).exitCode).toBe(0);
    const other = project.writePatch('other.patch', { 'lib/scale.c': [['* 10', '* 1000']] });
    const both = await project.patchMake(['--update', patch, other]);
    expect(both.stderr).not.toContain('building the project as it is');
    expect(replacedIn(both.json)).toEqual({
      'lib/libcalc.so': ['calc', 'scale'],
      'src/static': ['calc', 'scale'],
    });
  });

  test('a project that was built without being recorded is not passed over', async () => {
    project.run('make');
    const { exitCode, json } = await project.patchMake([project.writePatch('fix.patch', calc)]);
    expect(exitCode).toBe(1);
    expect(json).toMatchObject({
      error: { code: 'NOTHING_RECORDED', hint: expect.stringContaining('--clean') as string },
    });
  });

  test('what only comments change: exit code 3, and no patch', async () => {
    const patch = project.writePatch('fix.patch', {
      'lib/calc.c': [['  calls++;', '  // One more.\n\n  calls++;']],
    });
    const { exitCode, json } = await project.patchMake([patch]);
    expect(exitCode).toBe(3);
    expect(json).toMatchObject({ outcome: 'unchanged', deliverables: [] });
    expect(fs.existsSync(project.file('patchroot'))).toBe(false);
  });

  test('all reasons against it at once, and then no patch for anything', async () => {
    const patch = project.writePatch('fix.patch', {
      'lib/calc.c': [
        [
          'static int calls;',
          'static int calls = 5;\n__attribute__((constructor)) static void early(void) {\n  calls++;\n}',
        ],
        ['  return value * 2;', '  return value * 2 + 1;'],
      ],
      'lib/scale.c': [['* 10', '* 100']],
    });
    const { exitCode, json } = await project.patchMake([patch]);
    expect(exitCode).toBe(2);
    for (const { refusals } of json.deliverables) {
      const codes = refusals.map(({ code }) => code);
      expect(codes).toContain('RUN_AT_LOAD');
    }
    expect(json.deliverables.length).toBe(2);
    expect(fs.existsSync(project.file('patchroot'))).toBe(false);
  });

  test.each([
    [
      'does not apply',
      'SOURCE_PATCH_REJECTED',
      '--- a/lib/calc.c\n+++ b/lib/calc.c\n@@ -1,3 +1,3 @@\n one\n-two\n+three\n four\n',
    ],
    ['changes nothing', 'SOURCE_PATCH_REJECTED', 'just text\n'],
    [
      'does not compile',
      'BUILD_TOOL_FAILED',
      '--- a/lib/scale.c\n+++ b/lib/scale.c\n@@ -1 +1 @@\n-// A second unit, which uses an inline function of the header.\n+nonsense;\n',
    ],
  ])('a patch that %s: exit code 1, and the files as before', async (_, code, text) => {
    expect((await project.patchMake([project.writePatch('fix.patch', calc)])).exitCode).toBe(0);
    const before = project.contents();
    const file = path.join(path.dirname(project.directory), 'bad.patch');
    fs.writeFileSync(file, text);
    const { exitCode, json } = await project.patchMake([file]);
    expect(exitCode).toBe(1);
    expect(json).toMatchObject({ error: { code } });
    expect(project.contents()).toEqual(before);
  });
});

test('a run that is killed while the project is patched is undone by the next one', async () => {
  project = new Project('calc');
  try {
    expect((await project.patchMake([project.writePatch('fix.patch', scaled)])).exitCode).toBe(0);
    const before = project.contents();
    // The patched build ends the run: its parent is the shell of the build, and that one's is libcare-patch-make.
    const build = 'make; grep -q "[*] 100" lib/scale.c && kill -9 $(ps -o ppid= -p $$) || :';
    await expect(
      project.patchMake(['--build', build, project.writePatch('fix.patch', scaled)]),
    ).rejects.toThrow(/could not be run/);
    expect(project.contents()).not.toEqual(before);
    const next = await project.patchMake([
      '--update',
      project.writePatch('next.patch', { 'lib/calc.c': [['calls++', 'calls += 2']] }),
    ]);
    expect(next.stderr).toContain('putting back the files');
    expect(next.exitCode, next.stdout).toBe(0);
    expect(replacedIn(next.json)['src/static']).toEqual(['calc']);
    expect(project.contents()).toEqual(before);
  } finally {
    await project.remove();
  }
});

test('a class hierarchy with templates and exceptions, by recorded compilers of C++', async () => {
  project = new Project('shapes');
  try {
    const build = "make CXX=libcare-c++ CXXFLAGS='-O2 -g -fstack-protector-strong'";
    project.run('sh', '-c', build);
    const patch = project.writePatch('fix.patch', {
      'shapes.cc': [
        ['return side * side;', 'return side * side + made;'],
        ['return "square " +', 'return "SQUARE of " +'],
      ],
      'shapes.h': [['best = value;', 'best = value + 1000;']],
    });
    const { exitCode, json, stdout } = await project.patchMake(['--update', '--build', build, patch]);
    expect(exitCode, stdout).toBe(0);
    expect(replacedIn(json)['shapes']).toEqual(
      expect.arrayContaining([
        '_ZNK6Square4areaEv',
        '_ZNK6Square4nameB5cxx11Ev',
        '_Z7largestIiET_RKSt6vectorIS0_SaIS0_EE',
      ]) as string[],
    );
    const program = await project.start('shapes');
    expect(await ask(program, '3', /^square/)).toBe('square 3 9 17 3 3');
    await whilePatched(program, project.directory, async () => {
      expect(await ask(program, '3', /^SQUARE/)).toBe('SQUARE of 3 12 1032 1003 3');
    });
    expect(await ask(program, '3', /^square/)).toBe('square 3 9 17 3 3');
  } finally {
    await project.remove();
  }
});

test('a build of CMake outside of the sources, configured with libcare-cc', async () => {
  project = new Project('cmake');
  try {
    project.run('env', 'CC=libcare-cc', 'CXX=libcare-c++', 'cmake', '-S', '.', '-B', 'build');
    const patch = project.writePatch('fix.patch', { 'greet/greet.cc': [['"hello "', '"good morning "']] });
    const { exitCode, json, stdout } = await project.patchMake(['--srcdir', '..', patch], 'build');
    expect(exitCode, stdout).toBe(0);
    expect(replacedIn(json)).toEqual({ 'build/greet/libgreet.so': ['greet'] });
    const program = await project.start('build/greeter');
    expect(await ask(program, 'you', /you$/)).toBe('9 hello you');
    await whilePatched(program, project.file('build'), async () => {
      expect(await ask(program, 'you', /you$/)).toBe('16 good morning you');
    });
    expect(await ask(program, 'you', /you$/)).toBe('9 hello you');
  } finally {
    await project.remove();
  }
});

const doubled = { 'tally.c': [['sum += value;', 'sum += 2 * value;']] } as const;

/** Asks, patches, asks, takes the patch back, asks: the sum is kept throughout. */
async function checkTally(program: Program, directory: string): Promise<void> {
  expect(await ask(program, '3', /^sum/)).toBe('sum 3');
  await whilePatched(program, directory, async () => {
    expect(await ask(program, '4', /^sum/)).toBe('sum 11');
  });
  expect(await ask(program, '5', /^sum/)).toBe('sum 16');
}

test('a build of Meson and ninja, configured with libcare-cc', async () => {
  project = new Project('meson');
  try {
    project.run('env', 'CC=libcare-cc', 'meson', 'setup', 'build');
    const patch = project.writePatch('fix.patch', doubled);
    const { exitCode, json, stdout } = await project.patchMake(['--srcdir', '..', patch], 'build');
    expect(exitCode, stdout).toBe(0);
    expect(replacedIn(json)).toEqual({ 'build/libtally.so': ['tally'] });
    await checkTally(await project.start('build/counter'), project.file('build'));
  } finally {
    await project.remove();
  }
});

test('autoconf, automake and libtool, by CC=libcare-cc ./configure', async () => {
  project = new Project('autotools');
  try {
    project.run('autoreconf', '--install');
    project.run('sh', '-ec', 'CC=libcare-cc ./configure && make');
    const { exitCode, json, stdout } = await project.patchMake([project.writePatch('fix.patch', doubled)]);
    expect(exitCode, stdout).toBe(0);
    expect(replacedIn(json)).toEqual({ '.libs/libtally.so.0.0.0': ['tally'] });
    expect(json.notes).toEqual([]);
    const program = await Program.start(project.file('.libs/counter'), [], {
      environment: { LD_LIBRARY_PATH: project.file('.libs') },
    });
    await program.waitForLine(/^ready$/);
    await checkTally(program, project.directory);
    await program.end();
  } finally {
    await project.remove();
  }
});
