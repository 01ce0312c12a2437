// A project of others as it comes: zlib with its own configure script, its libraries and its test programs.
import fs from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { unpackNewestSource } from '../../fixtures/support/packages.js';
import { ask, Project } from '../../fixtures/support/project.js';
import { packageRoot } from '../../src/base/package-root.js';

let project: Project;

beforeAll(async () => {
  // The project's own makefile cannot cope with blanks in its path.
  project = new Project(await unpackNewestSource('zlib', 'zlib1g'), 'zlib');
});
afterAll(() => project.remove());

test('CC=libcare-cc ./configure && make, and a running program is patched and unpatched', async () => {
  project.run('sh', '-ec', 'CC=libcare-cc ./configure && make -j2');
  const program = `${packageRoot()}/fixtures/projects/zlib/inflating.c`;
  project.run('cc', '-I.', '-o', 'inflating', program, '-L.', '-lz', '-Wl,-rpath,$ORIGIN');
  const running = await project.start('inflating');
  expect(await ask(running, 'some text', /^same|different/)).toBe('same, incorrect header check');

  const patch = project.writePatch('fix.patch', {
    'inflate.c': [
      [
        'strm->msg = (char *)"incorrect header check";',
        '/* Say\n more. */\nstrm->msg = (char *)"no zlib stream";',
      ],
    ],
  });
  const { exitCode, json, stdout } = await project.patchMake([patch]);
  expect(exitCode, stdout).toBe(0);
  const library = json.deliverables.find(({ name }) => name.startsWith('libz.so'));
  expect(library?.hunks?.filter(({ kind }) => kind === 'replace').map(({ name }) => name)).toEqual([
    'inflate',
  ]);
  // Its test programs hold the static library, each a copy of the function.
  expect(json.deliverables.length).toBeGreaterThan(3);
  expect(fs.readFileSync(project.file('inflate.c'), 'utf8')).not.toContain('no zlib stream');

  const pid = String(running.pid);
  const applied = await project.kcarectl('patch', pid, project.file('patchroot'));
  expect(applied.exitCode, applied.stdout + applied.stderr).toBe(0);
  expect(await ask(running, 'some text', /^same|different/)).toBe('same, no zlib stream');
  expect((await project.kcarectl('unpatch', pid)).exitCode).toBe(0);
  expect(await ask(running, 'some text', /^same|different/)).toBe('same, incorrect header check');
});
