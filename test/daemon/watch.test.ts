// Processes that begin while libcare-server runs, and libraries that are loaded later: patched without being asked.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';
import { AnswersWorld } from '../host/answers.js';
import { runFile, ServedHost, until } from './served-host.js';

let world: AnswersWorld;
let served: ServedHost;
let newcomer: string;
let late: string;

function compileNewcomer(name: string, ...options: readonly string[]): string {
  const source = join(packageRoot(), 'fixtures', 'engine', 'newcomer.c');
  const output = join(world.directory, name);
  const flags = ['-std=c11', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra', '-Werror'];
  execFileSync('cc', [...flags, '-o', output, source, ...options]);
  return output;
}

interface Watch {
  readonly state: string;
  readonly reason: string;
  readonly patchset: string;
  readonly waiting: number;
  readonly counts: Readonly<Record<string, number>>;
}

const watch = async (): Promise<Watch> => (await served.status())['watch'] as Watch;

beforeAll(async () => {
  world = new AnswersWorld();
  const { library } = world.compiled;
  newcomer = compileNewcomer('newcomer', library, `-Wl,-rpath,${join(library, '..')}`);
  late = compileNewcomer('late', '-DLATE');
  served = await ServedHost.start(join(world.directory, 'host'), [
    world.writePatchFile(world.patch(1, 43), 'level-1'),
  ]);
});
afterAll(async () => {
  await world.end();
  await served.end();
  world.remove();
});

/** What the program says of itself; it lives for `lifetimeMs` at most. */
async function run(program: string, lifetimeMs: number, ...parameters: readonly string[]): Promise<string> {
  const { stdout } = await runFile(program, [String(lifetimeMs), ...parameters]);
  return stdout;
}

it('leaves new processes alone until an update of all processes was made', async () => {
  await until(async () => (await watch()).reason.startsWith('No update'));
  expect(await run(newcomer, 200)).toMatch(/^answer 42 /);
  const { stdout } = await served.host.kcarectl('--lib-update', '--json');
  expect(stdout).toContain('"patchset"');
  await until(async () => (await watch()).state === 'on');
});

it('patches a process that begins, one that was forked by it, and a library that comes later, each time', async () => {
  expect(await run(newcomer, 60_000)).toMatch(/^answer 43 /);
  expect(await run(newcomer, 60_000, 'fork')).toMatch(/^answer 43 /);
  const rounds = await run(late, 60_000, '', '3', world.compiled.library);
  expect(rounds.match(/^answer 43 after \d+$/gm)).toHaveLength(3);
});
