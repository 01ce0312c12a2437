// Compares every object of libcrypto with itself, each function put in anew; nothing may differ.
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { packageRoot } from '../src/base/package-root.js';
import { defaultWorkDirectory } from '../src/build/index.js';
import { sourceOf } from '../src/build/compile.js';
import { run } from '../src/build/run.js';
import { noiseOf, unitsOf } from '../fixtures/support/noise.js';

const recipe = path.join(packageRoot(), 'recipes', 'debian12', 'openssl.yaml');
/** What the shared libcrypto is linked from: itself, and the default provider. */
const prefixes = ['libcrypto-shlib-', 'libcommon-lib-', 'libdefault-lib-'];

/** Whether nothing differs. */
export async function libraryNoise(): Promise<boolean> {
  const started = performance.now();
  const work = defaultWorkDirectory();
  const { tree, commands } = await unitsOf(recipe, work, prefixes);
  // One unit tells when and how the library was built; the header is otherwise made by a full build only.
  await run('make', ['crypto/buildinf.h'], { directory: tree.buildDirectory, environment: tree.environment });
  const generated = commands.filter((command) => !existsSync(sourceOf(tree, command)));
  for (const { source } of generated)
    await run('make', [source], {
      directory: tree.buildDirectory,
      environment: tree.environment,
    });
  let [functions, differing, next] = [0, 0, 0];
  const worker = async (): Promise<void> => {
    for (let index = next++; index < commands.length; index = next++) {
      const command = commands[index];
      if (!command) return;
      const { functions: count, differences } = await noiseOf(work, tree, command);
      functions += count;
      if (differences.length === 0) continue;
      differing++;
      process.stdout.write(`${command.source}: ${differences.join(', ')}\n`);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  process.stdout.write(
    `${commands.length} objects, ${functions} functions put in anew, ${differing} objects differ, ${seconds} s\n`,
  );
  return differing === 0 && functions > 0;
}
