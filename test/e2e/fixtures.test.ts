// The fixtures tell the truth: every program answers VULNERABLE on the archive's old OpenSSL and FIXED on the newer one.
import { execFile } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { defaultWorkDirectory, unpackBinary } from '../../src/build/index.js';
import { fixtureProgram, opensslCases, opensslEnvironment } from '../../fixtures/support/openssl.js';

const work = defaultWorkDirectory();

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
  { version: '3.0.17-1~deb12u2', answer: 'VULNERABLE', exitCode: 1, summary: '9 vulnerable, 0 fixed' },
  { version: '3.0.20-1~deb12u2', answer: 'FIXED', exitCode: 0, summary: '0 vulnerable, 9 fixed' },
])('on libssl3 $version', ({ version, answer, exitCode, summary }) => {
  test.each(opensslCases)(`%s answers ${answer}`, async (name) => {
    const result = await runOnce(`openssl/${name}`, await unpackBinary(work, 'libssl3', version));
    expect(result.stdout).toMatch(new RegExp(`^${name} ${answer}`));
    expect(result.exitCode).toBe(exitCode);
  });

  test('all cases in one program give the same answers', async () => {
    const result = await runOnce('openssl/all-cases', await unpackBinary(work, 'libssl3', version));
    expect(result.stdout).toContain(`SUMMARY ${summary}, 0 inconclusive`);
    expect(result.exitCode).toBe(exitCode);
  });
});
