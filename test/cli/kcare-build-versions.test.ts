// One recipe for every version of an archive, and then explain, verify and try with what that archive holds.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeSmallArchive, smallRecipe, type SmallVersion } from '../../fixtures/support/small-archive.js';
import { packageRoot } from '../../src/base/package-root.js';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-versions-'));
afterAll(() => fs.rmSync(directory, { recursive: true, force: true }));

const source = (limit: number, more = ''): string =>
  `static int calls;\n${more}int limit(int value) { calls++; return value > ${limit} ? ${limit} : value + 1; }\nint count(void) { return calls; }\n`;

const versions: readonly SmallVersion[] = [
  { version: '1.0', source: source(20) },
  { version: '1.1', source: source(20, 'int more(int value) { return value * 7 + calls; }\n') },
  { version: '1.10', source: source(20), shippedFlags: '-O1 -fPIC -fno-omit-frame-pointer' },
  { version: '1.11', source: source(10, 'int other(int value) { return value * 9; }\n') },
  { version: '2.0', source: source(10) },
  { version: '2.1', source: source(10) },
];

interface World {
  readonly run: (...parameters: string[]) => { status: number | null; stdout: string; stderr: string };
  readonly recipe: string;
  readonly output: string;
}

function worldOf(name: string, held: readonly SmallVersion[], runs = '1.0'): World {
  const place = path.join(directory, name);
  const environment = makeSmallArchive(place, held);
  const recipe = path.join(place, 'demo.yaml');
  fs.writeFileSync(recipe, smallRecipe(runs, '2.0'));
  const output = path.join(place, 'patches');
  const env = { ...process.env, ...environment, KCARE_WORK: path.join(place, 'work') };
  const program = path.join(packageRoot(), 'bin', 'kcare-build');
  return {
    run: (...parameters) => spawnSync(program, parameters, { encoding: 'utf8', env }),
    recipe,
    output,
  };
}

let world: World;
beforeAll(() => {
  world = worldOf('all', versions);
});

test('every version has its row, and the exit status is that of the worst', () => {
  const { run, recipe, output } = world;
  const { status, stdout, stderr } = run(
    'recipe',
    recipe,
    '--all-versions',
    '--jobs',
    '2',
    '--output',
    output,
  );
  const file = (version: string): string => path.join(output, `demo-${version}-level3.kpatch`);
  expect(
    stdout.split('\n').filter((line) => !line.startsWith('1.10 ')),
    stderr,
  ).toEqual([
    'VERSION  OUTCOME',
    `1.0      built          ${file('1.0')}`,
    `1.1      built          ${file('1.1')}`,
    '1.11     nothing to do  both versions give the same code',
    '2.0      nothing to do  has the fixes of 2.0 already',
    '2.1      nothing to do  has the fixes of 2.0 already',
    '',
  ]);
  expect(stdout).toMatch(/^1\.10 {5}refused {8}NOT_FOUND_IN_OBJECT: /m);
  expect(stderr).toMatch(/^1\.1: linking the patch$/m);
  expect(status).toBe(2);
  expect(fs.readdirSync(output).sort()).toEqual(['demo-1.0-level3.kpatch', 'demo-1.1-level3.kpatch']);
});

test('in JSON, from what was kept', () => {
  const { run, recipe, output } = world;
  const { status, stdout } = run('recipe', recipe, '--all-versions', '--output', output, '--json');
  expect(status).toBe(2);
  const result = JSON.parse(stdout) as { versions: { version: string }[] };
  expect(result).toMatchObject({
    exitCode: 2,
    versions: [
      { version: '1.0', outcome: 'built', result: { level: 3, hunks: [{ name: 'limit' }] } },
      { version: '1.1', outcome: 'built' },
      { version: '1.10', outcome: 'refused', result: { refusals: [{ code: 'NOT_FOUND_IN_OBJECT' }] } },
      { version: '1.11', outcome: 'nothing to do' },
      { version: '2.0', outcome: 'nothing to do' },
      { version: '2.1', outcome: 'nothing to do' },
    ],
  });
});

test('what was built is explained, proved and tried with the package of its version', () => {
  const { run, output } = world;
  for (const version of ['1.0', '1.1']) {
    const file = path.join(output, `demo-${version}-level3.kpatch`);
    const explained = run('explain', file);
    expect(explained.stdout, explained.stderr).toMatch(/^Old code the package of the archive$/m);
    expect(explained.stdout).toMatch(/^ {4}- .*mov +\$0x14,%edx$/m);
    expect(explained.stdout).toMatch(/^ {4}\+ .*mov +\$0xa,%edx$/m);
    const verified = run('verify', '--json', file);
    expect(verified.status, verified.stdout).toBe(0);
    expect(JSON.parse(verified.stdout)).toMatchObject({ verdict: 'proved' });
    expect(run('try', file)).toMatchObject({ status: 0 });
  }
});

test('the old code is there without the archive, too', () => {
  const { status, stdout } = world.run(
    'explain',
    '--no-fetch',
    path.join(world.output, 'demo-1.0-level3.kpatch'),
  );
  expect(stdout).toMatch(/^Old code the patch itself/m);
  expect(stdout).toMatch(/^ {4}- .*mov +\$0x14,%edx$/m);
  expect(status).toBe(0);
});

test('a patch of another version is refuted with all reasons: status 2', () => {
  const object = path.join(directory, 'all', 'binary', '1.1', 'usr/lib/libdemo.so.1');
  const patch = path.join(world.output, 'demo-1.0-level3.kpatch');
  const { status, stdout } = world.run('verify', '--object', object, patch);
  expect(stdout).toMatch(/^Refuted:\n {2}object libdemo\.so\.1: its build-id is [0-9a-f]+, and the patch/);
  expect(stdout).toMatch(/^ {2}unit demo\.c: /m);
  expect(status).toBe(2);
  expect(world.run('explain', '--object', object, patch).status).toBe(2);
});

test('wrong use of explain and verify: 64; a missing file: 1; no patch: 2', () => {
  fs.writeFileSync(path.join(directory, 'text'), 'no patch');
  for (const verb of ['explain', 'verify']) {
    expect(world.run(verb).status).toBe(64);
    expect(world.run(verb, path.join(directory, 'none')).status).toBe(1);
    expect(world.run(verb, directory).status).toBe(1);
    expect(world.run(verb, path.join(directory, 'text')).status).toBe(2);
    const { status, stdout } = world.run(verb, '--help');
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^NAME\n[\s\S]*^SYNOPSIS\n[\s\S]*^OPTIONS\n[\s\S]*^EXIT STATUS\n[\s\S]*^EXAMPLES\n/m,
    );
  }
});

test('one version by name', () => {
  const { run, recipe, output } = world;
  expect(run('recipe', recipe, '--runs', '1.1', '--output', output)).toMatchObject({ status: 0 });
  const done = run('recipe', recipe, '--runs', '2.1', '--output', output);
  expect(done.stdout).toBe('Nothing to do: 2.1 has the fixes of 2.0 already.\n');
  expect(done.status).toBe(3);
  expect(run('recipe', recipe, '--runs', '1.5', '--output', output)).toMatchObject({ status: 1 });
  expect(run('recipe', recipe, '--runs', '1.1', '--all-versions').status).toBe(64);
  expect(run('recipe', recipe, '--jobs', '2').status).toBe(64);
  expect(run('recipe', recipe, '--all-versions', '--jobs', '0').status).toBe(64);
});

test('nothing to do for any version: status 3', () => {
  const { run, recipe } = worldOf('fixed', versions.slice(3), '1.11');
  const { status, stdout } = run('recipe', recipe, '--all-versions');
  expect(stdout.match(/nothing to do/g)).toHaveLength(3);
  expect(status).toBe(3);
});

test('a version whose package lacks the library fails, and the others are built: status 1', () => {
  const broken: SmallVersion = { version: '1.05', source: source(20), isEmpty: true };
  const { run, recipe } = worldOf('broken', [...versions.slice(0, 1), broken, ...versions.slice(4, 5)]);
  const { status, stdout } = run('recipe', recipe, '--all-versions');
  expect(stdout).toMatch(/^1\.05 +failed +\S/m);
  expect(stdout).toMatch(/^1\.0 +built +\S/m);
  expect(status).toBe(1);
});

test('docs/exit-codes.md has a row for every verb', () => {
  const [, help = ''] = /^COMMANDS$([^]*)^OPTIONS$/m.exec(world.run('--help').stdout) ?? [];
  const verbs = [...help.matchAll(/^ {7}(\w+)$/gm)].map(([, verb]) => verb);
  expect(verbs).toEqual(expect.arrayContaining(['recipe', 'explain', 'verify', 'try', 'publish']));
  const page = fs.readFileSync(path.join(packageRoot(), 'docs', 'exit-codes.md'), 'utf8');
  const rows = [...page.matchAll(/^\| `(\w+)` +\|/gm)].map(([, verb]) => verb);
  expect(verbs.filter((verb) => !rows.includes(verb))).toEqual([]);
});
