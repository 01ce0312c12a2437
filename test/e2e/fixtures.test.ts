// The fixtures tell the truth: every program answers VULNERABLE on the archive's old OpenSSL and FIXED on the newer one.
import { execFile } from 'node:child_process';
import { beforeAll, describe, expect, test } from 'vitest';
import { defaultWorkDirectory, unpackBinary } from '../../src/build/index.js';
import { fixtureProgram, opensslCases, opensslEnvironment } from '../../fixtures/support/openssl.js';
import { buildOpensslPatch } from '../../fixtures/support/patches.js';

/** Roots of the unpacked packages: the recipe's versions, or the nearest that the archive holds. */
const unpacked = { runs: '', fixed: '' };

beforeAll(async () => {
  const patch = await buildOpensslPatch([]);
  unpacked.runs = patch.unpacked;
  unpacked.fixed = await unpackBinary(defaultWorkDirectory(), 'libssl3', patch.fixed);
});

function runOnce(program: string, unpackedLibssl: string): Promise<{ exitCode: number; stdout: string }> {
  return new Promise((resolve, reject) => {
    const options = { env: { ...process.env, ...opensslEnvironment(unpackedLibssl) } };
    execFile(fixtureProgram(program), options, (error, stdout) => {
      const exitCode = error ? error.code : 0;
      if (typeof exitCode === 'number') resolve({ exitCode, stdout });
      else reject(new Error(`${program} was killed: ${error?.message ?? ''}`));
    });
  });
}

describe.each([
  { version: 'runs', answer: 'VULNERABLE', exitCode: 1, summary: '9 vulnerable, 0 fixed' },
  { version: 'fixed', answer: 'FIXED', exitCode: 0, summary: '0 vulnerable, 9 fixed' },
] as const)('with the version “$version” of the recipe', ({ version, answer, exitCode, summary }) => {
  test.each(opensslCases)(`%s answers ${answer}`, async (name) => {
    const result = await runOnce(`openssl/${name}`, unpacked[version]);
    expect(result.stdout).toMatch(new RegExp(`^${name} ${answer}`));
    expect(result.exitCode).toBe(exitCode);
  });

  test('all cases in one program give the same answers', async () => {
    const result = await runOnce('openssl/all-cases', unpacked[version]);
    expect(result.stdout).toContain(`SUMMARY ${summary}, 0 inconclusive`);
    expect(result.exitCode).toBe(exitCode);
  });
});
