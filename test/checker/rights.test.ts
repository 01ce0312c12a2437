// What kcare-uchecker says when it may not look, and while processes come and go.
import { spawn } from 'node:child_process';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { PrivateLibssl } from './private-libssl.js';
import { scan } from '../../src/checker/index.js';
import { asNobody, CheckerWorld, replaceFile, runCommand, runJson } from './world.js';

const nobody = asNobody();

describe('a user without rights', () => {
  it('is told that processes were not examined, and never that all is well', async () => {
    const world = new CheckerWorld();
    const target = await world.startOn(await PrivateLibssl.copy(world));
    const named = ['--no-feed', '--pid', `${target.pid}`];
    expect((await runJson(named)).exitCode).toBe(0);
    const { exitCode, stdout } = await runCommand('kcare-uchecker', named, nobody);
    expect(exitCode).toBe(4);
    expect(stdout).toContain(`Not examined: 1 process (${target.pid})`);
    expect(stdout).not.toContain('looks OK');
    const whole = await runJson(['--no-feed'], nobody);
    expect([4, 5]).toContain(whole.exitCode);
    expect(whole.report.complete).toBe(false);
    expect(whole.report.unexamined.map(({ pid }) => pid)).toContain(target.pid);
  });

  it('sees what own processes execute, also where the file is gone, by their memory', async () => {
    const world = new CheckerWorld();
    const libraries = await PrivateLibssl.copy(world);
    const target = await world.startOn(libraries, nobody);
    const named = ['--no-feed', '--pid', `${target.pid}`];
    expect(await runJson(named, nobody)).toMatchObject({ exitCode: 0, report: { complete: true } });
    replaceFile(path.join(libraries, 'libcrypto.so.3'), path.join(libraries, 'libssl.so.3'));
    const [asUser, asRoot] = [await runJson(named, nobody), await runJson(named)];
    expect(asUser.exitCode).toBe(5);
    expect(asUser.report.processes).toEqual(asRoot.report.processes);
  });
});

it('a named process that does not exist makes the result incomplete', async () => {
  const { exitCode, report } = await runJson(['--no-feed', '--pid', '4194303']);
  expect(exitCode).toBe(4);
  expect(report.unexamined).toMatchObject([{ pid: 4194303, error: { code: 'TARGET_GONE' } }]);
});

it('wrong options are refused', async () => {
  for (const wrong of [['--pid', 'x'], ['--nonsense'], ['word']]) {
    expect((await runCommand('kcare-uchecker', wrong)).exitCode).toBe(64);
  }
});

describe('processes that come and go', () => {
  const churners: ReturnType<typeof spawn>[] = [];
  afterEach(() => churners.splice(0).forEach((churner) => churner.kill('SIGKILL')));

  it('are no error, however often they are scanned', async () => {
    for (let count = 0; count < 3; count++) {
      const loop = 'while :; do /bin/true & /bin/sleep 0.01 & wait; done';
      churners.push(spawn('/bin/sh', ['-c', loop], { stdio: 'ignore' }));
    }
    const allowed = ['NOT_PERMITTED', 'TARGET_UNSUPPORTED'];
    const sizes = new Set<number>();
    const codes = new Set<string>();
    const note = (report: ReturnType<typeof scan>): void => {
      sizes.add(report.examined.processes);
      report.unexamined.forEach(({ error }) => codes.add(error.code));
    };
    for (let run = 0; run < 60; run++) note(scan({ feed: { state: 'left-out' } }));
    for (let run = 0; run < 24; run += 3) {
      const results = await Promise.all([1, 2, 3].map(() => runJson(['--no-feed'])));
      for (const { exitCode, report } of results) {
        expect([0, 4, 5]).toContain(exitCode);
        note(report);
      }
    }
    expect([...codes].filter((code) => !allowed.includes(code))).toEqual([]);
    // There was something to miss.
    expect(sizes.size).toBeGreaterThan(1);
  });
});
