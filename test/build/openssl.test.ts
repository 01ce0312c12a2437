// The real recipe, built from the archive's packages: all vulnerabilities of OpenSSL in one file.
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';
import { buildRecipe, type BuildResult } from '../../src/build/index.js';
import { readRecipe } from '../../src/build/recipe.js';

const recipe = path.join(packageRoot(), 'recipes', 'debian12', 'openssl.yaml');
const output = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-openssl-'));
let built: BuildResult;

const bytesOf = (result: BuildResult): Buffer => {
  if (result.file === undefined) throw new Error(JSON.stringify(result.refusals));
  return fs.readFileSync(result.file);
};

beforeAll(async () => {
  built = await buildRecipe(recipe, { output: path.join(output, 'first'), force: true });
});

afterAll(() => {
  fs.rmSync(output, { recursive: true, force: true });
});

test('all fixes are in one patch', async () => {
  expect(built.refusals).toEqual([]);
  const { recipe: read } = await readRecipe(recipe);
  expect(built.patch?.metadata.cves.map(({ id }) => id)).toEqual(read.cves.map(({ id }) => id));
  const replaced = built.patch?.hunks.filter(({ kind }) => kind === 'replace').map(({ name }) => name) ?? [];
  expect(new Set(replaced).size).toBe(replaced.length);
});

test('the build-id and every original byte are those of the shipped library', () => {
  const library = fs.readFileSync(built.object.path);
  const notes = execFileSync('readelf', ['-n', built.object.path], { encoding: 'utf8' });
  expect(notes).toContain(built.patch?.buildId);
  for (const { name, address, original } of built.patch?.hunks ?? []) {
    const place = library.indexOf(original);
    // .text of this library is mapped at its own file offset.
    expect(place, name).toBe(address);
    expect(library.indexOf(original, place + 1), name).toBe(-1);
  }
});

test('every replaced function has an unwind entry of its own in the library and in the patch', () => {
  const frames = execFileSync('readelf', ['--debug-dump=frames', built.object.path], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  const ranges = new Set(
    [...frames.matchAll(/pc=([0-9a-f]+)\.\.([0-9a-f]+)/g)].map(
      ([, start = '', end = '']) => `${parseInt(start, 16)} ${parseInt(end, 16)}`,
    ),
  );
  for (const { name, address, size } of built.patch?.hunks ?? []) {
    expect(ranges.has(`${address} ${address + size}`), name).toBe(true);
  }
  const own = execFileSync('readelf', ['--debug-dump=frames', built.file ?? ''], { encoding: 'utf8' });
  expect(own.match(/ FDE /g)?.length).toBe(
    built.patch?.symbols.filter((s) => s.where === 'patch' && s.isFunction).length,
  );
});

test('a second build from the beginning gives the same bytes, free of paths of this machine', async () => {
  const again = await buildRecipe(recipe, { output: path.join(output, 'second'), force: true });
  expect(Buffer.compare(bytesOf(built), bytesOf(again))).toBe(0);
  expect(bytesOf(built).includes(packageRoot())).toBe(false);
});

test('a selection of fixes is a patch of its own', async () => {
  const some = await buildRecipe(recipe, { cves: ['CVE-2025-9232'], output: path.join(output, 'some') });
  expect(some.patch?.hunks.map(({ name }) => name)).toEqual(['use_proxy']);
  expect(some.file).not.toBe(built.file);
});

test('objdump reads the patch and shows the calls through the library’s own stubs', () => {
  const listing = execFileSync('objdump', ['-dr', built.file ?? ''], { encoding: 'utf8' });
  expect(listing).toContain('<use_proxy>:');
  expect(listing).toMatch(/R_X86_64_PC32\s+BIO_write\.plt/);
});

test.each([
  ['readelf', '-aW'],
  ['objdump', '-dr'],
])('%s %s reads the patch without complaint', (tool, flags) => {
  const { status, stderr } = spawnSync(tool, [flags, built.file ?? ''], { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
});
