// The real patches of OpenSSL and of the C library, explained, proved and tried by the command that made them.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { glibcProgram, libcOf } from '../../fixtures/support/glibc.js';
import { fixtureProgram, libcryptoOf, opensslCases } from '../../fixtures/support/openssl.js';
import { buildGlibcPatches, buildOpensslPatch } from '../../fixtures/support/patches.js';
import { packageRoot } from '../../src/base/package-root.js';

function kcareBuild(...parameters: string[]): { status: number | null; stdout: string; stderr: string } {
  const program = path.join(packageRoot(), 'bin', 'kcare-build');
  return spawnSync(program, parameters, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
}

describe('the patch of OpenSSL', () => {
  test('is explained with the package of the archive, and proved by it', async () => {
    const { file } = await buildOpensslPatch(opensslCases);
    const explained = kcareBuild('explain', file);
    expect(explained.stdout, explained.stderr).toMatch(
      /^replace use_proxy: 367 bytes at 0x22c340 → \d+ bytes$/m,
    );
    expect(explained.stdout).toMatch(/^ {4}\+ .*call +memmove\.plt$/m);
    expect(explained.stdout).toMatch(/lea +"no_proxy"\(%rip\),%rdi$/m);
    const { status, stdout } = kcareBuild('verify', file);
    expect(stdout).toMatch(/\nProved: \d{3} statements proved, 0 refuted, \d+ open\.\n$/);
    expect(status).toBe(0);
  });

  test('mends nine faults in a process of a trial, and leaves no trace in another', async () => {
    const { file, unpacked } = await buildOpensslPatch(opensslCases);
    const { status, stdout, stderr } = kcareBuild(
      ...['try', file, '--object', libcryptoOf(unpacked)],
      ...['--trigger', fixtureProgram('openssl/all-cases')],
      ...['--suite', 'openssl sha256 /bin/true && exit 5'],
    );
    expect(stdout, stderr).toMatch(
      /^Scratch process: applied, unloaded\n {2}all \d+ bytes of code and all mappings/,
    );
    expect(stdout).toMatch(/exit status 1 without the patch, 0 with it/);
    expect(stdout).toMatch(/exit status 5 without the patch, 5 with it: the same\n {2}1 of 1 processes/);
    expect(stderr).toMatch(/SUMMARY 9 vulnerable[\s\S]*SUMMARY 0 vulnerable, 9 fixed/);
    expect(status).toBe(0);
  });
});

describe('the patch of the C library', () => {
  test('is proved, and tried with the loader of its package', async () => {
    const [{ file, unpacked }] = await buildGlibcPatches();
    const object = libcOf(unpacked);
    const verified = kcareBuild('verify', '--object', object, file);
    expect(verified.stdout).toMatch(/\nProved: \d+ statements proved, 0 refuted/);
    expect(verified.status).toBe(0);
    const program = glibcProgram(unpacked, 'glibc/libc-cases').parameters.at(-1) ?? '';
    const tried = kcareBuild('try', file, '--object', object, '--trigger', `$KCARE_LOADER ${program}`);
    expect(tried.stdout, tried.stderr).toMatch(/exit status 1 without the patch, 0 with it/);
    expect(tried.status).toBe(0);
  });
});
