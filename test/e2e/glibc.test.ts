// Eight real vulnerabilities of the C library and its converters, live in one process: from VULNERABLE to FIXED and back.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { glibcCases, glibcProgram, libcOf } from '../../fixtures/support/glibc.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { buildGlibcPatches, type BuiltPatch } from '../../fixtures/support/patches.js';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { parsePatchInfo, parseUpdate } from '../../fixtures/support/reports.js';
import { readPatch } from '../../src/patchfile/index.js';

const rounds = 5;
const vulnerable = /^SUMMARY 8 vulnerable, 0 fixed, 0 inconclusive/;
const fixed = /^SUMMARY 0 vulnerable, 8 fixed, 0 inconclusive/;

describe('the C library of a running process', () => {
  let directory: string;
  let built: BuiltPatch;
  let host: LocalHost;
  let program: Program;
  let mappingsBefore: string[];

  beforeAll(async () => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-glibc-'));
    const patches = await buildGlibcPatches();
    [built] = patches;
    host = await LocalHost.create(
      directory,
      patches.map(({ file }) => file),
    );
    const { file, parameters, environment } = glibcProgram(built.unpacked);
    program = await Program.start(file, parameters, { environment: { ...environment, LOOP: '100' } });
    await program.waitForLine(vulnerable);
    mappingsBefore = readMappings(program.pid);
  });

  afterAll(async () => {
    await program.end();
    fs.rmSync(directory, { recursive: true });
  });

  const kcarectl = async (action: string): Promise<string> => {
    const result = await host.kcarectl(action, '--pid', String(program.pid), '--json');
    expect(result.exitCode, result.stderr).toBe(0);
    return result.stdout;
  };

  test('is patched in no other functions than those of the fixes', () => {
    const { hunks, symbols } = readPatch(fs.readFileSync(built.file));
    expect(hunks.map(({ kind, name }) => `${kind} ${name}`).sort()).toEqual([
      'guard __assert_fail_base.cold',
      'replace __GI__nss_dns_gethostbyaddr2_r',
      'replace __GI__nss_dns_getnetbyaddr_r',
      'replace __assert_fail_base',
      'replace __libc_message',
      'replace _int_memalign',
      'replace parse_expression',
      'replace wordexp',
    ]);
    // Everything is reached as the library itself reaches it: errno, the loader's data, indirect functions.
    expect(symbols.filter(({ where }) => where === 'foreign')).toEqual([]);
  });

  test('becomes fixed, and says which vulnerabilities that were', async () => {
    expect(parseUpdate(await kcarectl('--lib-update')).map(({ result }) => result)).toEqual(['applied']);
    await program.waitForLine(fixed);
    const patches = parsePatchInfo(await kcarectl('--lib-patch-info'));
    expect([...new Set(patches.map(({ cve }) => cve))].sort()).toEqual([...glibcCases]);
    expect(readMappings(program.pid).filter((line) => / .w.?x/.test(line))).toEqual([]);
  });

  test('becomes vulnerable again without a trace (R7)', async () => {
    await kcarectl('--lib-unload');
    await program.waitForLine(vulnerable);
    expect(countChangedCodeBytes(program.pid, libcOf(built.unpacked))).toBe(0);
    expect(readMappings(program.pid)).toEqual(mappingsBefore);
  });

  test(`follows ${rounds} times to and fro`, async () => {
    for (let round = 0; round < rounds; round++) {
      await kcarectl('--lib-update');
      await program.waitForLine(fixed);
      await kcarectl('--lib-unload');
      await program.waitForLine(vulnerable);
    }
    expect(program.isAlive).toBe(true);
    expect(countChangedCodeBytes(program.pid, libcOf(built.unpacked))).toBe(0);
    expect(readMappings(program.pid)).toEqual(mappingsBefore);
  });

  test('is busy while a thread waits for DNS in a function of a fix, and is waited for (--wait)', async () => {
    const { file, parameters, environment } = glibcProgram(built.unpacked, 'glibc/waiting');
    const waiting = await Program.start(file, parameters, { environment });
    try {
      await waiting.waitForLine(/^waiting/);
      const update = (seconds: string): ReturnType<LocalHost['kcarectl']> =>
        host.kcarectl('--lib-update', '--wait', seconds, '--pid', String(waiting.pid), '--json');
      const [busy] = parseUpdate((await update('0')).stdout);
      expect(busy?.result).toBe('busy');
      expect(busy?.error?.message).toContain('_nss_dns_getnetbyaddr_r');
      const patient = update('60');
      setTimeout(() => waiting.writeLine('answer'), 500);
      expect(parseUpdate((await patient).stdout).map(({ result }) => result)).toEqual(['applied']);
      await waiting.waitForLine(/^returned/);
    } finally {
      await waiting.end();
    }
  });
});
