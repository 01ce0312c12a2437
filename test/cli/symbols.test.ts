// --lib-symbols: a real gdb, attached to a process that waits inside a patched function, shows its name and what is below.
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Program } from '../../fixtures/support/program.js';
import { runKcarectl } from '../../fixtures/support/kcarectl.js';
import { apply } from '../../src/engine/index.js';
import { UnwindingWorkshop } from '../engine/unwinding-workshop.js';

const workshop = new UnwindingWorkshop();
let program: Program;

beforeAll(async () => {
  await workshop.build([1]);
  program = await Program.start(workshop.program);
  await program.waitForLine(/^ready/);
});
afterAll(async () => {
  await program.end();
  workshop.close();
});

async function symbolsOf(...more: readonly string[]): Promise<string> {
  const parameters = ['--lib-symbols', String(program.pid), '--output', workshop.directory, ...more];
  const { exitCode, stdout, stderr } = await runKcarectl(workshop.directory, parameters);
  expect(stderr).toBe('');
  expect(exitCode).toBe(0);
  return stdout;
}

/** The names in a backtrace of the main thread, innermost first. */
function backtraceOf(commands: readonly string[]): string[] {
  const given = [...commands, 'thread 1', 'backtrace', 'detach'].flatMap((command) => ['-ex', command]);
  const setup = ['-nx', '-batch', '-iex', 'set debuginfod enabled off', '-p', String(program.pid)];
  const output = execFileSync('gdb', [...setup, ...given], { encoding: 'utf8', stdio: 'pipe' });
  return [...output.matchAll(/^#\d+ +(?:0x[0-9a-f]+ in )?([^ ]+)/gm)].map(([, name = '']) => name);
}

it('writes files by which gdb shows patched functions, and what called them', async () => {
  expect(await symbolsOf()).toBe(`Process ${program.pid} is not patched.\n`);
  expect((await apply(program.pid, [workshop.patch(1)], { waitMs: 5000, dryRun: false })).result).toBe(
    'applied',
  );
  program.writeLine('wait');
  await program.waitForLine(/^waiting/);
  const { files } = JSON.parse(await symbolsOf('--json')) as {
    files: readonly { object: string; path: string; command: string }[];
  };
  expect(files).toMatchObject([{ object: 'libunit.so', command: `add-symbol-file ${files[0]?.path ?? ''}` }]);
  expect(await symbolsOf()).toContain(files[0]?.command);

  const path = files[0]?.path ?? '';
  expect(execFileSync('readelf', ['-SW', path], { encoding: 'utf8' })).toMatch(/\.eh_frame/);
  const names = backtraceOf(files.map(({ command }) => command));
  expect(names).toContain('relay');
  expect(names.slice(names.indexOf('relay'))).toContain('main');
  // Without the file it knows neither.
  expect(backtraceOf([])).not.toContain('relay');
});
