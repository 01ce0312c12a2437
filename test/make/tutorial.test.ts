// The commands of docs/libcare-patch-make.md do what the page says.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { withCommands } from '../../fixtures/support/project.js';
import { packageRoot } from '../../src/base/package-root.js';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-tutorial-'));
afterAll(() => fs.rmSync(directory, { recursive: true, force: true }));

test('docs/libcare-patch-make.md', () => {
  const page = fs.readFileSync(path.join(packageRoot(), 'docs', 'libcare-patch-make.md'), 'utf8');
  const commands = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, text = '']) => text);
  expect(commands.length).toBe(6);
  const project = path.join(directory, 'project');
  fs.mkdirSync(project);
  // Whatever fails, the process that the page starts is ended.
  const script = `set -e\ntrap 'kill $! 2>/dev/null || :' EXIT\n${commands.join('\n')}`;
  const { status, stdout, stderr } = spawnSync('sh', ['-c', script], {
    cwd: project,
    encoding: 'utf8',
    env: withCommands({ KCARE_ROOT: path.join(directory, 'root') }),
  });
  expect(status, stdout + stderr).toBe(0);
  expect(stdout).toMatch(/replace greeting at 0x/);
  expect(stdout).toMatch(/^ {4}\+ .*"good morning"/m);
  expect(stdout).toMatch(/^Proved: \d+ statements proved, 0 refuted/m);
  expect(stdout).toMatch(/^Scratch process: applied, unloaded$/m);
  expect(stdout).toMatch(/replaces greeting at 0x[0-9a-f]+\ngood morning\n/);
  expect(stdout).toMatch(/\nhello\n$/);
});
