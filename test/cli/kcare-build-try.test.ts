// `kcare-build try` with real processes: what passes, and everything that must not.
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';
import { apply, unload } from '../../src/engine/index.js';
import { writePatch } from '../../src/patchfile/index.js';
import { differences, takePicture } from '../../src/review/trial-memory.js';
import { startScratch } from '../../src/review/trial-scratch.js';
import { inTrialPlace } from '../../src/review/trial-place.js';
import { patchSmallTree, type SmallResult } from '../build/small-tree.js';

const source = (limit: number): string =>
  `#include <stdio.h>\nint limit(int value) { printf("limit of %d\\n", value); return value > ${limit} ? ${limit} : value; }\n`;

/** Ends with 1 where 15 is not limited to 10; with "fork", a child asks. */
const check = `#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
extern int limit(int);
int main(int count, char **arguments)
{
    if (count > 1 && !strcmp(arguments[1], "fork")) {
        pid_t child = fork();
        int status = 0;
        if (child == 0) _exit(limit(15) > 10);
        waitpid(child, &status, 0);
        return WEXITSTATUS(status);
    }
    return limit(15) > 10;
}
`;

let tree: SmallResult;
let patch: string;
let checker: string;

beforeAll(async () => {
  tree = await patchSmallTree({ before: source(20), after: source(10), functions: ['limit'] });
  if (!tree.patch) throw new Error(JSON.stringify(tree.refusals));
  patch = path.join(tree.directory, 'limit.kpatch');
  fs.writeFileSync(patch, writePatch(tree.patch));
  checker = path.join(tree.directory, 'check');
  const program = `${checker}.c`;
  fs.writeFileSync(program, check);
  execFileSync('gcc', ['-o', checker, program, tree.file]);
});

function tryIt(...parameters: string[]): { status: number | null; stdout: string; stderr: string } {
  const program = path.join(packageRoot(), 'bin', 'kcare-build');
  return spawnSync(program, ['try', patch, ...parameters], { encoding: 'utf8' });
}

const withObject = (...parameters: string[]): ReturnType<typeof tryIt> =>
  tryIt('--object', tree.file, ...parameters);

test('a patch that mends its fault passes, in programs and in what they fork', () => {
  const { status, stdout, stderr } = withObject(
    ...['--trigger', checker, '--trigger', `${checker} fork`],
    ...['--suite', `${checker}; test $? -le 1; ${checker} fork; exit 7`],
  );
  expect(stdout, stderr).toMatch(/^Scratch process: applied, unloaded\n {2}all \d+ bytes of code/);
  expect(stdout.match(/exit status 1 without the patch, 0 with it/g)).toHaveLength(2);
  expect(stdout).toMatch(/exit status 7 without the patch, 7 with it: the same\n {2}2 of 2 processes/);
  expect(stdout).toMatch(/\nPassed\.\n$/);
  expect(status).toBe(0);
});

test('in JSON', () => {
  const { status, stdout } = withObject('--json', '--trigger', checker, '--suite', `${checker}; exit 0`);
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    verdict: 'passed',
    scratch: { applied: 'applied', unloaded: 'unloaded', differences: [] },
    triggers: [{ before: 1, after: 0, passed: true, processes: [{ result: 'applied' }] }],
    suite: { before: 0, after: 0, passed: true },
  });
});

describe('what does not pass, with status 2', () => {
  test.each([
    [
      'a fault that stays',
      '--trigger',
      `${checker0()} || exit 1; exit 1`,
      /the fault is there with the patch, too/,
    ],
    ['a fault that is not there', '--trigger', `${checker0()}; exit 0`, /does not show without the patch/],
    [
      'a trigger that ends otherwise',
      '--trigger',
      `${checker0()} && exit 3; exit 1`,
      /something else goes wrong/,
    ],
    ['a command without the object', '--suite', 'true', /no process of it had the object/],
    [
      'a suite with another end',
      '--suite',
      checker0(),
      /exit status 1 without the patch, 0 with it: not the same/,
    ],
  ])('%s', (_, option, command, message) => {
    const { status, stdout } = withObject(option, command.replaceAll(checker0(), checker));
    expect(stdout).toMatch(message);
    expect(stdout).toMatch(/\nFailed\.\n$/);
    expect(status).toBe(2);
  });

  /** The program is known only when the tests run. */
  function checker0(): string {
    return '{check}';
  }

  test('an object of another build', () => {
    const other = path.join(tree.directory, 'other.so');
    execFileSync('gcc', ['-shared', '-fPIC', '-Wl,--build-id=sha1', '-o', other, `${checker}.c`]);
    const { status, stderr } = tryIt('--object', other);
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: expect.stringMatching(/the patch is for/) as string,
    });
  });

  test('a patch file that others can write', () => {
    fs.chmodSync(patch, 0o666);
    try {
      expect(withObject()).toMatchObject({ status: 2, stdout: '' });
    } finally {
      fs.chmodSync(patch, 0o644);
    }
  });
});

test('a missing file: status 1; wrong options: 64', () => {
  expect(tryIt('--object', path.join(tree.directory, 'none.so')).status).toBe(1);
  expect(withObject('--wait', 'long').status).toBe(64);
  expect(withObject('--unknown').status).toBe(64);
});

test('a program is loaded and never begins', async () => {
  const mark = path.join(tree.directory, 'began');
  const main = path.join(tree.directory, 'main.c');
  fs.writeFileSync(
    main,
    `#include <fcntl.h>\nextern int limit(int);\nint main(void) { open("${mark}", O_CREAT | O_WRONLY, 0600); return limit(3); }\n`,
  );
  const built = await patchSmallTree({
    before: source(20),
    after: source(10),
    functions: ['limit'],
    program: main,
  });
  if (!built.patch) throw new Error(JSON.stringify(built.refusals));
  const file = path.join(built.directory, 'program.kpatch');
  fs.writeFileSync(file, writePatch(built.patch));
  const program = path.join(packageRoot(), 'bin', 'kcare-build');
  const { status, stdout } = spawnSync(program, ['try', file, '--object', built.file], { encoding: 'utf8' });
  expect(stdout).toMatch(/^Scratch process: applied, unloaded\n {2}all/);
  expect(status).toBe(0);
  expect(fs.existsSync(mark)).toBe(false);
});

test('code and mappings that are not as before are all told', async () => {
  await inTrialPlace(tree.file, async (place) => {
    const scratch = await startScratch(place, false);
    try {
      if (!tree.patch) throw new Error('no patch');
      const options = { waitMs: 1000, dryRun: false, intentDirectory: place.directory };
      const before = takePicture(scratch.pid);
      expect(differences(before, takePicture(scratch.pid))).toEqual([]);
      await apply(scratch.pid, [{ patch: tree.patch, patchset: 'trial', sha256: '0'.repeat(64) }], options);
      const found = differences(before, takePicture(scratch.pid)).join('\n');
      expect(found).toMatch(/^mapping left: 0x[0-9a-f]+-0x[0-9a-f]+ r-xp 0x0$/m);
      expect(found).toMatch(/^code changed: .*libunit\.so$/m);
      await unload(scratch.pid, options);
      expect(differences(before, takePicture(scratch.pid))).toEqual([]);
    } finally {
      await scratch.end();
    }
  });
});
