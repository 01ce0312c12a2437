// Putting functions in anew changes no code: on objects of libcrypto drawn by a fixed seed. `npm run noise` takes all.
import fs from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { noiseOf, unitsOf } from '../../fixtures/support/noise.js';
import { sourceOf } from '../../src/build/compile.js';
import { packageRoot } from '../../src/base/package-root.js';
import { defaultWorkDirectory } from '../../src/build/index.js';
import { random } from '../random.js';

const seed = 20261122;
const sample = 12;

test(`${sample} objects of libcrypto (seed ${seed}) are the same with every function put in anew`, async () => {
  const recipe = path.join(packageRoot(), 'recipes', 'debian12', 'openssl.yaml');
  const work = defaultWorkDirectory();
  const { tree, commands: all } = await unitsOf(recipe, work, [
    'libcrypto-shlib-',
    'libcommon-lib-',
    'libdefault-lib-',
  ]);
  // Some sources are made by a full build only, and which ones depends on what make has looked at.
  const commands = all.filter((command) => fs.existsSync(sourceOf(tree, command)));
  expect(commands.length).toBeGreaterThan(600);
  const next = random(seed);
  let functions = 0;
  for (let count = 0; count < sample; count++) {
    const command = commands[next() % commands.length];
    if (!command) throw new Error('no command');
    const noise = await noiseOf(work, tree, command);
    expect(noise.differences, command.source).toEqual([]);
    functions += noise.functions;
  }
  expect(functions).toBeGreaterThan(sample);
}, 300_000);
