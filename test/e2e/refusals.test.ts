// What does not fit or is not trusted is refused by name, and the process keeps every byte.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test } from 'vitest';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { fixtureProgram, opensslEnvironment } from '../../fixtures/support/openssl.js';
import { buildOpensslPatch, type BuiltPatch } from '../../fixtures/support/patches.js';
import { readMappings, readMemory } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { parseFailure, parseUpdate } from '../../fixtures/support/reports.js';
import { apply } from '../../src/engine/index.js';
import { readPatch, writePatch, type Patch } from '../../src/patchfile/index.js';

let directory: string;
let built: BuiltPatch;
let patch: Patch;
let program: Program;
let before: string;

const makeDirectory = (): string => fs.mkdtempSync(path.join(directory, 'case-'));

/** A hash over all that the idle target maps and holds. */
function hashProcess(pid: number): string {
  const hash = createHash('sha256');
  for (const line of fs.readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
    const [, start = '0', end = '0', permissions = '', name = ''] =
      /^(\w+)-(\w+) (\S+) \S+ \S+ \S+\s*(.*)$/.exec(line) ?? [];
    hash.update(line);
    if (!permissions.startsWith('r') || name.startsWith('[v')) continue;
    const first = BigInt(`0x${start}`);
    hash.update(readMemory(pid, first, Number(BigInt(`0x${end}`) - first)));
  }
  return hash.digest('hex');
}

/** After its last line the program still makes a buffer; then it sits in read(0, ...) for good. */
async function untilItReadsInput(pid: number): Promise<void> {
  while (!fs.readFileSync(`/proc/${pid}/syscall`, 'utf8').startsWith('0 0x0 ')) await sleep(5);
}

function writeChanged(change: Partial<Patch>): string {
  const file = path.join(makeDirectory(), 'changed.kpatch');
  fs.writeFileSync(file, writePatch({ ...patch, ...change }));
  return file;
}

/** The published copy of the patch in the host's feed. */
function publishedPatch(host: LocalHost): string {
  const files = fs.readdirSync(host.feedDirectory, { recursive: true, encoding: 'utf8' });
  const file = files.find((name) => name.endsWith('.kpatch'));
  if (file === undefined) throw new Error(`${host.feedDirectory} holds no patch.`);
  return path.join(host.feedDirectory, file);
}

beforeAll(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-refusals-'));
  built = await buildOpensslPatch(['CVE-2026-22796']);
  patch = readPatch(fs.readFileSync(built.file));
});

afterAll(() => {
  fs.rmSync(directory, { recursive: true });
});

beforeEach(async () => {
  program = await Program.start(fixtureProgram('bench/threads'), ['0'], {
    environment: opensslEnvironment(built.unpacked),
  });
  await program.waitForLine(/^ready$/);
  await untilItReadsInput(program.pid);
  before = hashProcess(program.pid);
});

afterEach(() => program.end());

function expectUntouched(): void {
  expect(program.isAlive).toBe(true);
  expect(hashProcess(program.pid)).toBe(before);
}

describe('a patch that does not fit', () => {
  afterEach(expectUntouched);

  test('is refused when the code in memory is not what it expects (R3)', async () => {
    const hunks = patch.hunks.map((hunk) => {
      const original = Uint8Array.from(hunk.original);
      original[0] = (original[0] ?? 0) ^ 1;
      return { ...hunk, original };
    });
    const host = await LocalHost.create(makeDirectory(), [writeChanged({ hunks })]);
    const { exitCode, stdout } = await host.kcarectl('--lib-update', '--pid', String(program.pid), '--json');
    expect(parseUpdate(stdout)).toMatchObject([
      { pid: program.pid, result: 'refused', error: { code: 'BYTES_MISMATCH' } },
    ]);
    expect(exitCode).toBe(2);
  });

  test('is never chosen for an object with another build-id', async () => {
    const host = await LocalHost.create(makeDirectory(), [writeChanged({ buildId: 'ab'.repeat(20) })]);
    const { exitCode, stdout } = await host.kcarectl('--lib-update', '--pid', String(program.pid), '--json');
    expect(parseUpdate(stdout)).toEqual([]);
    expect(exitCode).toBe(0);
  });

  test('is refused by the engine when no object has its build-id (R3)', async () => {
    const stranger = {
      patch: { ...patch, buildId: 'ab'.repeat(20) },
      patchset: 'U20261122_01',
      sha256: '0'.repeat(64),
    };
    const report = await apply(program.pid, [stranger], { waitMs: 0, dryRun: false });
    expect(report).toMatchObject({ result: 'refused', error: { code: 'BUILD_ID_MISMATCH' } });
  });
});

describe('a feed that cannot be trusted (R4)', () => {
  afterEach(expectUntouched);

  async function expectRefusal(host: LocalHost, code: string): Promise<void> {
    const { exitCode, stdout } = await host.kcarectl('--lib-update', '--pid', String(program.pid), '--json');
    expect(parseFailure(stdout).code).toBe(code);
    expect(exitCode).toBe(2);
  }

  test('is refused when another key signed it', async () => {
    const host = await LocalHost.create(makeDirectory(), [built.file]);
    const stranger = await LocalHost.create(makeDirectory(), [built.file]);
    fs.rmSync(host.feedDirectory, { recursive: true });
    fs.cpSync(stranger.feedDirectory, host.feedDirectory, { recursive: true });
    await expectRefusal(host, 'FEED_UNTRUSTED');
  });

  test.each([
    {
      damage: 'one byte of the patch was changed',
      change: (bytes: Buffer) => bytes.fill((bytes[200] ?? 0) ^ 1, 200, 201),
    },
    { damage: 'the patch is too short', change: (bytes: Buffer) => bytes.subarray(0, -1) },
    { damage: 'the patch is too long', change: (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(1)]) },
  ])('is refused when $damage', async ({ change }) => {
    const host = await LocalHost.create(makeDirectory(), [built.file]);
    const file = publishedPatch(host);
    fs.writeFileSync(file, change(fs.readFileSync(file)));
    await expectRefusal(host, 'FEED_MISMATCH');
  });
});

test('the untouched patch is applied to such a process, so that the refusals above mean something', async () => {
  const host = await LocalHost.create(makeDirectory(), [built.file]);
  const mappings = readMappings(program.pid);
  const updated = await host.kcarectl('--lib-update', '--pid', String(program.pid), '--json');
  expect(parseUpdate(updated.stdout)).toMatchObject([{ pid: program.pid, result: 'applied' }]);
  expect(readMappings(program.pid)).not.toEqual(mappings);
  expect((await host.kcarectl('--lib-unload', '--pid', String(program.pid))).exitCode).toBe(0);
});
