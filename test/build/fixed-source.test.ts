// Where fixed functions come from: the archive's packages, a folder, and what becomes of fixes that are not in there.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';
import { buildRecipe, defaultWorkDirectory, unpackSource } from '../../src/build/index.js';
import { patchSmallTree } from './small-tree.js';

const recipe = path.join(packageRoot(), 'recipes', 'debian12', 'openssl.yaml');
const cves = ['CVE-2025-9232'];
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-fixed-source-'));

afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

describe('a folder with the fixed sources', () => {
  test('gives the same patch as the package with the same sources', async () => {
    const usual = await buildRecipe(recipe, { cves, output: path.join(directory, 'usual') });
    const fixedSource = await unpackSource(defaultWorkDirectory(), 'openssl', usual.versions.fixed);
    const other = await buildRecipe(recipe, { cves, fixedSource, output: path.join(directory, 'other') });
    const [first, second] = [usual.file, other.file].map((file) => fs.readFileSync(file ?? ''));
    expect(first?.equals(second ?? Buffer.alloc(0))).toBe(true);
  });

  test('is read again at each build', async () => {
    const usual = await buildRecipe(recipe, { cves, output: path.join(directory, 'usual') });
    const tree = await unpackSource(defaultWorkDirectory(), 'openssl', usual.versions.runs);
    const fixedSource = path.join(directory, 'tree');
    for (const part of ['crypto/http', 'include']) {
      fs.cpSync(path.join(tree, part), path.join(fixedSource, part), { recursive: true });
    }
    const build = (): ReturnType<typeof buildRecipe> =>
      buildRecipe(recipe, { cves, fixedSource, output: directory });
    expect((await build()).outcome).toBe('unchanged');
    const file = path.join(fixedSource, 'crypto', 'http', 'http_lib.c');
    const text = fs.readFileSync(file, 'utf8');
    fs.writeFileSync(file, text.replace('sl -= 2', 'sl -= 3'));
    expect((await build()).patch?.hunks.map(({ name }) => name)).toEqual(['use_proxy']);
  });

  test('that is none is wrong use', async () => {
    const fixedSource = path.join(directory, 'none');
    await expect(buildRecipe(recipe, { cves, fixedSource })).rejects.toMatchObject({ code: 'USAGE' });
  });
});

describe('a fix in which the versions do not differ', () => {
  const text = (result: number): string =>
    'extern int work(int);\n' +
    `int one(int v) { return work(v) * 31 + ${result}; }\nint two(int v) { return work(v) * 29 + v; }\n`;
  const tree = {
    before: text(1),
    after: text(2),
    functions: ['one'],
    second: ['two'],
    others: { 'other.c': 'int work(int v) { return v * 7 + 1; }\n' },
  };

  test('is refused beside others: the patch would claim it', async () => {
    expect((await patchSmallTree(tree)).codes).toEqual(['SAME_SOURCE']);
  });

  test('is left out when other versions stand in', async () => {
    const { refusals, patch } = await patchSmallTree({ ...tree, substituted: true });
    expect(refusals).toEqual([]);
    expect(patch?.metadata.cves.map(({ id }) => id)).toEqual(['CVE-2026-1']);
  });
});
