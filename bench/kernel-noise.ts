// Compares objects of the archive's oldest kernel with themselves, each function put in anew; nothing may differ.
import { readdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { archiveKernels, kernelImage } from '../fixtures/support/kernel-archive.js';
import { kernelNoiseOf } from '../fixtures/support/kernel-noise.js';
import { defaultWorkDirectory } from '../src/build/index.js';
import { prepareKernelTree } from '../src/kbuild/kernel-packages.js';
import { ShippedKernel } from '../src/kbuild/kernel-symbols.js';
import { unitCommands, type UnitCommand } from '../src/kbuild/kernel-unit.js';

const directories = ['fs', 'kernel', 'mm', 'net'];
/** What is no part of a kernel for virtual machines, and large. */
const leftOut = /\/(?:selftests|tests?|kunit|[\w-]*_?test[\w-]*)[./]/;

/** `count` objects, as many of each directory, spread over it; whether nothing differs. */
export async function kernelNoise(count: number): Promise<boolean> {
  const started = performance.now();
  const [kernel] = await archiveKernels();
  if (!kernel) throw new Error('The archive has no kernel.');
  const work = defaultWorkDirectory();
  const tree = await prepareKernelTree(work, kernel, []);
  const shipped = await ShippedKernel.open((await kernelImage(kernel)).vmlinux);
  const sums = { objects: 0, functions: 0, compiled: 0, proved: 0, differing: 0 };
  for (const [index, directory] of directories.entries()) {
    const wanted = Math.floor((count * (index + 1)) / directories.length);
    const sources = spread(await sourcesIn(tree, directory));
    const commands: UnitCommand[] = [];
    const next = async (): Promise<UnitCommand | undefined> => {
      while (commands.length === 0 && sources.length > 0)
        commands.push(...(await unitCommands(tree, sources.splice(0, 30))).values());
      return commands.shift();
    };
    const worker = async (): Promise<void> => {
      for (let command = await next(); command && sums.objects < wanted; command = await next()) {
        const noise = await kernelNoiseOf(work, tree, command, shipped);
        if (!noise) continue;
        sums.objects++;
        if (sums.objects % 10 === 0) process.stderr.write(`${sums.objects} of ${count} objects\n`);
        sums.functions += noise.functions;
        sums.compiled += noise.compiled;
        sums.proved += noise.proved;
        if (noise.differences.length === 0) continue;
        sums.differing++;
        process.stdout.write(`${command.source}: ${noise.differences.join(', ')}\n`);
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, worker));
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  process.stdout.write(
    `Linux ${kernel.release}: ${sums.objects} objects, ${sums.functions} functions put in anew, ${sums.differing} objects differ; ` +
      `${sums.proved} of ${sums.compiled} compiled functions found in the shipped kernel; ${seconds} s\n`,
  );
  return sums.differing === 0 && sums.objects >= count;
}

async function sourcesIn(tree: string, directory: string): Promise<string[]> {
  const names = await readdir(path.join(tree, directory), { recursive: true });
  return names
    .map((name) => path.join(directory, name))
    .filter((name) => name.endsWith('.c') && !leftOut.test(name))
    .sort();
}

/** Every seventh, then every seventh of the others, and so on. */
function spread(names: readonly string[]): string[] {
  return Array.from({ length: 7 }, (_, start) => names.filter((_name, index) => index % 7 === start)).flat();
}
