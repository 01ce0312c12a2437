// Programs around an update: their time is limited, and what they start ends with them.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { findHooks, runUpdateHooks } from '../../src/agent/index.js';
import type { KcareError } from '../../src/base/errors.js';

let hooks: string;
const directories: string[] = [];

beforeEach(() => {
  hooks = mkdtempSync(join(tmpdir(), 'kcare-hooks-'));
  directories.push(hooks);
});
afterAll(() => directories.forEach((path) => rmSync(path, { recursive: true, force: true })));

function hook(name: string, script: string): void {
  const directory = join(hooks, 'before-update.d');
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(directory, name), 0o755);
}

async function failure(timeoutMs = 60_000): Promise<KcareError> {
  return await runUpdateHooks({ hooks }, 'before-update', { environment: {}, timeoutMs }).then(
    () => {
      throw new Error('No hook has failed.');
    },
    (thrown: unknown) => thrown as KcareError,
  );
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

it('need not be there', async () => {
  expect(await findHooks({ hooks: join(hooks, 'none') }, 'before-update')).toEqual([]);
  await runUpdateHooks({ hooks }, 'after-update', { environment: {} });
});

it('end, with what they started, when their time is over', async () => {
  const note = join(hooks, 'pids');
  hook('slow', `sleep 1000 & echo $$ $! > ${note}; wait`);
  expect(await failure(2000)).toMatchObject({
    code: 'HOOK_FAILED',
    message: expect.stringContaining('did not end within 2 s') as string,
  });
  const pids = readFileSync(note, 'utf8').trim().split(' ').map(Number);
  expect(pids).toHaveLength(2);
  await expect.poll(() => pids.filter(isAlive)).toEqual([]);
});

it('stop at the first that fails, and keep the end of what it said', async () => {
  const second = join(hooks, 'second-ran');
  hook('10-first', 'i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; exit 1');
  hook('20-second', `touch ${second}`);
  const { message } = await failure();
  expect(message).toMatch(/line 2999$/);
  expect(message.length).toBeLessThan(5000);
  expect(existsSync(second)).toBe(false);
});

it('say what is wrong with a program that cannot be run or is killed', async () => {
  hook('broken', '');
  writeFileSync(join(hooks, 'before-update.d/broken'), '#!/nonexistent/interpreter\n');
  expect((await failure()).message).toContain('cannot be run');
  hook('broken', 'kill -9 $$');
  expect((await failure()).message).toContain('was ended by SIGKILL');
});

it('are not waited for when they leave something in the background', async () => {
  const note = join(hooks, 'pid');
  hook('background', `sleep 1000 & echo $! > ${note}`);
  await runUpdateHooks({ hooks }, 'before-update', { environment: {} });
  process.kill(Number(readFileSync(note, 'utf8')), 'SIGKILL');
});
