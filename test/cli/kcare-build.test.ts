// What scripts see of kcare-build: exit statuses, JSON on standard output, reasons in words.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';

const recipe = path.join(packageRoot(), 'recipes', 'debian12', 'openssl.yaml');
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-build-command-'));

function kcareBuild(...parameters: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(path.join(packageRoot(), 'bin', 'kcare-build'), parameters, { encoding: 'utf8' });
}

/** The recipe with one fix that takes these functions from this file. */
function variant(name: string, file: string, functions: string): string {
  const head = fs.readFileSync(recipe, 'utf8').split(/^cves:$/m)[0] ?? '';
  const target = path.join(directory, name);
  fs.writeFileSync(
    target,
    `${head}cves:\n  - { id: X-1, description: test, file: ${file}, functions: [${functions}] }\n`,
  );
  return target;
}

afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

test('a built patch: status 0, its file and hunks in JSON, and the same again at once', () => {
  const first = kcareBuild('recipe', '--cve', 'CVE-2025-9232', recipe, '--output', directory, '--json');
  expect(first.status, first.stderr).toBe(0);
  const file = path.join(directory, fs.readdirSync(directory).find((name) => name.endsWith('.kpatch')) ?? '');
  expect(JSON.parse(first.stdout)).toMatchObject({
    outcome: 'built',
    file,
    level: 1,
    hunks: [{ kind: 'replace', name: 'use_proxy' }],
    versions: { runs: '3.0.17-1~deb12u2' },
  });
  const bytes = fs.readFileSync(file);
  const second = kcareBuild('recipe', recipe, '--cve', 'CVE-2025-9232', '--output', directory);
  expect(second).toMatchObject({ status: 0, stderr: '' });
  expect(fs.readFileSync(file).equals(bytes)).toBe(true);
});

test('a refusal: status 2, every reason in text', () => {
  const file = variant('refused.yaml', 'crypto/http/http_lib.c', 'missing_one, missing_two');
  const { status, stdout } = kcareBuild('recipe', file, '--output', directory);
  expect(status).toBe(2);
  expect(stdout).toMatch(/missing_one[\s\S]*missing_two/);
});

test('functions that do not differ: status 3', () => {
  const file = variant('unchanged.yaml', 'crypto/pkcs7/pk7_doit.c', 'PKCS7_get_attribute');
  const { status, stdout } = kcareBuild('recipe', file, '--output', directory);
  expect(status).toBe(3);
  expect(stdout).toContain('Nothing changed');
});

test('wrong use: status 64; a missing recipe: 1; a malformed one: 2', () => {
  expect(kcareBuild('recipe').status).toBe(64);
  for (const ids of ['CVE-1', 'CVE-2025-9232,CVE-1']) {
    const unknown = kcareBuild('recipe', '--cve', ids, recipe);
    expect([unknown.status, unknown.stderr]).toEqual([64, expect.stringMatching(/CVE-1\b/)]);
  }
  expect(kcareBuild('recipe', path.join(directory, 'none.yaml')).status).toBe(1);
  fs.writeFileSync(path.join(directory, 'bad.yaml'), 'name: 1\n');
  const { status, stdout } = kcareBuild('recipe', path.join(directory, 'bad.yaml'), '--json');
  expect(status).toBe(2);
  expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'RECIPE_MALFORMED' } });
});
