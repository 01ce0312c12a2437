// Units of the kernel compared with themselves, each function put in anew: nothing differs (a sample; `npm run noise -- kernel`).
import { expect, test } from 'vitest';
import { archiveKernels, kernelImage } from '../../fixtures/support/kernel-archive.js';
import { kernelNoiseOf } from '../../fixtures/support/kernel-noise.js';
import { defaultWorkDirectory } from '../../src/build/index.js';
import { prepareKernelTree } from '../../src/kbuild/kernel-packages.js';
import { ShippedKernel } from '../../src/kbuild/kernel-symbols.js';
import { unitCommands } from '../../src/kbuild/kernel-unit.js';

const sources = ['fs/fcntl.c', 'kernel/sys.c', 'mm/mlock.c', 'net/core/fib_rules.c'];

test('no change is found where nothing changed, and most functions are found in the shipped kernel', async () => {
  const [kernel] = await archiveKernels();
  if (!kernel) throw new Error('no kernel');
  const work = defaultWorkDirectory();
  const tree = await prepareKernelTree(work, kernel, sources);
  const shipped = await ShippedKernel.open((await kernelImage(kernel)).vmlinux);
  const commands = await unitCommands(tree, sources);
  for (const source of sources) {
    const command = commands.get(source);
    const noise = command && (await kernelNoiseOf(work, tree, command, shipped));
    if (!noise) throw new Error(`${source} is no part of the kernel`);
    expect(noise.differences, source).toEqual([]);
    expect(noise.functions, source).toBeGreaterThan(5);
    expect(noise.proved / noise.compiled, source).toBeGreaterThan(0.9);
  }
});
