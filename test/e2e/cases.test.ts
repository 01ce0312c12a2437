// Nine real vulnerabilities, live: every process goes from VULNERABLE to FIXED and back, again and again.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LocalHost } from '../../fixtures/support/local-host.js';
import {
  fixtureProgram,
  libcryptoOf,
  opensslCases,
  opensslEnvironment,
} from '../../fixtures/support/openssl.js';
import { buildOpensslPatch, type BuiltPatch } from '../../fixtures/support/patches.js';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { parseInfo, parsePatchInfo, parseUpdate } from '../../fixtures/support/reports.js';

const rounds = 20;

interface Target {
  readonly name: string;
  readonly program: Program;
  readonly vulnerable: RegExp;
  readonly fixed: RegExp;
}

let directory: string;
let built: BuiltPatch;
let host: LocalHost;
let targets: Target[];
let mappingsBefore: Map<number, string[]>;

const pids = (): string[] => ['--pid', ...targets.map(({ program }) => String(program.pid))];

async function startTargets(environment: Record<string, string>): Promise<Target[]> {
  const single = opensslCases.map(async (name) => ({
    name,
    program: await Program.start(fixtureProgram(`openssl/${name}`), [], { environment }),
    vulnerable: new RegExp(`^${name} VULNERABLE`),
    fixed: new RegExp(`^${name} FIXED`),
  }));
  const all = {
    name: 'all nine in one process',
    program: await Program.start(fixtureProgram('openssl/all-cases'), [], { environment }),
    vulnerable: /^SUMMARY 9 vulnerable/,
    fixed: /^SUMMARY 0 vulnerable, 9 fixed/,
  };
  return [...(await Promise.all(single)), all];
}

async function everyTargetSays(answer: 'vulnerable' | 'fixed'): Promise<void> {
  await Promise.all(targets.map((target) => target.program.waitForLine(target[answer])));
}

function expectUntouchedMemory(report: string): void {
  for (const { name, program } of targets) {
    expect(countChangedCodeBytes(program.pid, libcryptoOf(built.unpacked)), name).toBe(0);
    expect(readMappings(program.pid), `${name}: ${report}`).toEqual(mappingsBefore.get(program.pid));
  }
}

beforeAll(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-cases-'));
  built = await buildOpensslPatch(opensslCases);
  host = await LocalHost.create(directory, [built.file]);
  targets = await startTargets({ ...opensslEnvironment(built.unpacked), LOOP: '100' });
  await everyTargetSays('vulnerable');
  mappingsBefore = new Map(targets.map(({ program }) => [program.pid, readMappings(program.pid)]));
});

afterAll(async () => {
  await Promise.all(targets.map(({ program }) => program.end()));
  fs.rmSync(directory, { recursive: true });
});

describe('kcarectl --lib-update', () => {
  test('fixes every running process', async () => {
    const { exitCode, stdout, stderr } = await host.kcarectl('--lib-update', ...pids(), '--json');
    expect(exitCode, stderr).toBe(0);
    const outcomes = parseUpdate(stdout);
    for (const { name, program } of targets) {
      expect(outcomes.find(({ pid }) => pid === program.pid)?.result, name).toBe('applied');
    }
    await everyTargetSays('fixed');
  });

  test('reports what is patched, in which process, with every CVE', async () => {
    const info = parseInfo((await host.kcarectl('--lib-info', ...pids(), '--json')).stdout);
    expect(info.map(({ pid }) => pid).sort()).toEqual(targets.map(({ program }) => program.pid).sort());
    const patches = parsePatchInfo((await host.kcarectl('--lib-patch-info', ...pids(), '--json')).stdout);
    expect([...new Set(patches.map(({ cve }) => cve))].sort()).toEqual([...opensslCases].sort());
  });

  test('finds nothing to do the second time', async () => {
    const before = targets.map(({ program }) => readMappings(program.pid));
    const { exitCode, stdout, stderr } = await host.kcarectl('--lib-update', ...pids(), '--json');
    expect(exitCode, stderr).toBe(0);
    expect(new Set(parseUpdate(stdout).map(({ result }) => result))).toEqual(new Set(['unchanged']));
    expect(targets.map(({ program }) => readMappings(program.pid))).toEqual(before);
  });

  test('leaves no page writable and executable (R9)', () => {
    for (const { program } of targets) {
      expect(readMappings(program.pid).filter((line) => / .w.?x/.test(line))).toEqual([]);
    }
  });
});

describe('kcarectl --lib-unload', () => {
  test('gives every process its old code and its old mappings back (R7)', async () => {
    const { exitCode, stdout, stderr } = await host.kcarectl('--lib-unload', ...pids());
    expect(exitCode, stderr).toBe(0);
    await everyTargetSays('vulnerable');
    expectUntouchedMemory(stdout);
  });
});

test(`${rounds} times to and fro, every process follows every time and none dies`, async () => {
  let report = '';
  for (let round = 1; round <= rounds; round++) {
    const updated = await host.kcarectl('--lib-update', ...pids());
    expect(updated.exitCode, `round ${round}: ${updated.stdout}${updated.stderr}`).toBe(0);
    await everyTargetSays('fixed');
    const unloaded = await host.kcarectl('--lib-unload', ...pids());
    expect(unloaded.exitCode, `round ${round}: ${unloaded.stdout}${unloaded.stderr}`).toBe(0);
    await everyTargetSays('vulnerable');
    report = unloaded.stdout;
  }
  expect(targets.filter(({ program }) => !program.isAlive)).toEqual([]);
  expectUntouchedMemory(report);
}, 900_000);
