// Modules made of compiled units, loaded by the archive's kernel: functions of modules, callbacks, shadow variables, refusals.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runGuest } from '../../fixtures/support/guest.js';
import {
  archiveKernels,
  kernelHeaders,
  kernelImage,
  type KernelImage,
} from '../../fixtures/support/kernel-archive.js';
import { buildModule, kernelBuildId } from '../../fixtures/support/kernel-modules.js';
import { compileUnit } from '../../fixtures/support/kernel-units.js';
import { packageRoot } from '../../src/base/package-root.js';
import { emitLivepatchModule, type ChangedUnit, type ModuleFacts } from '../../src/kbuild/index.js';
import { readKernelModule } from '../../src/patchfile/index.js';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-emission-'));
afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});
const fixture = (name: string): string => path.join(packageRoot(), 'fixtures/kernel', name);

let kernel: KernelImage;
let headers: string;
let patchable: ChangedUnit;

beforeAll(async () => {
  const newest = (await archiveKernels()).at(-1);
  if (!newest) throw new Error('no kernel');
  kernel = await kernelImage(newest);
  headers = await kernelHeaders(newest);
  patchable = await compileUnit(headers, path.join(directory, 'patchable'), {
    source: fixture('patchable.c'),
    module: 'patchable',
    changedFunctions: ['patchable_show'],
    newFunctions: ['reads_since_patch'],
  });
});

const facts = (level: number): ModuleFacts => ({
  ...{ name: `kcare_emitted_${level}`, level, effective: '6.1.999', packageVersion: kernel.version },
  ...{ kernelBuildId: kernelBuildId(kernel), headers, sources: [fixture('callbacks.c')] },
  cves: [
    { id: 'CVE-2099-0001', score: '7.8', url: '', description: 'Says "changed" \\ instead of original?' },
  ],
});

test('a patch of a module takes hold when the module is loaded now or later; callbacks and shadow variables work', async () => {
  const module = await emitLivepatchModule([patchable], facts(1));
  expect((await emitLivepatchModule([patchable], facts(1))).equals(module)).toBe(true);
  const description = readKernelModule(module);
  expect(description).toMatchObject({ name: 'kcare_emitted_1', level: 1, release: kernel.release });
  expect(description.cves).toEqual(facts(1).cves);
  const patch = path.join(directory, 'kcare_emitted_1.ko');
  fs.writeFileSync(patch, module);
  const target = buildModule(headers, path.join(directory, 'target'), fixture('patchable.c'));
  const result = await runGuest({
    kernel,
    files: { '/patch.ko': patch, '/patchable.ko': target },
    script: `
settle() { until [ "$(cat /sys/kernel/livepatch/kcare_emitted_1/transition)" = 0 ]; do :; done; }
unload() {
  echo 0 >/sys/kernel/livepatch/kcare_emitted_1/enabled
  while [ -e /sys/kernel/livepatch/kcare_emitted_1 ]; do :; done
  rmmod kcare_emitted_1
}
set -e
insmod /patch.ko
settle
insmod /patchable.ko
cat /proc/patchable /proc/patchable >/out/later
unload
cat /proc/patchable >>/out/later
insmod /patch.ko
settle
cat /proc/patchable >/out/now
unload
cat /proc/patchable >>/out/now
dmesg | sed -n 's/.*callback: //p' >/out/callbacks
`,
  });
  expect(result.faults).toEqual([]);
  expect(result.exitCode, result.console).toBe(0);
  const lines = (name: string): string[] => result.files.get(name)?.toString().trim().split('\n') ?? [];
  expect(lines('later')).toEqual(['changed 1 one, 1 since', 'changed 2 more, 2 since', 'original 3 more']);
  expect(lines('now')).toEqual(['changed 4 more, 1 since', 'original 5 more']);
  expect(lines('callbacks').slice(0, 4)).toEqual([
    'before patchable is patched',
    'patchable is patched',
    'before the patch of patchable goes',
    'the patch of patchable is gone',
  ]);
});

test('what cannot be carried is refused with all reasons: unknown symbols, static keys of modules, code that runs once', async () => {
  const refusal = (unit: Partial<ChangedUnit>, more: Partial<ModuleFacts> = {}): Promise<Buffer> =>
    emitLivepatchModule([{ ...patchable, ...unit }], { ...facts(1), ...more });
  const without = new Map([...patchable.symbols].filter(([name]) => name !== 'reads' && name !== 'entry'));
  await expect(refusal({ symbols: without })).rejects.toThrow(/needs reads.*\n.*needs entry/);
  await expect(refusal({ changedFunctions: ['word_for'] })).rejects.toThrow(
    /__jump_table needs is_polite of module patchable/,
  );
  await expect(refusal({ changedFunctions: ['patchable_init'] })).rejects.toThrow(/runs only while/);
  await expect(refusal({ changedFunctions: ['absent'] })).rejects.toThrow(/absent is not a function/);
  await expect(refusal({ changedFunctions: [], newFunctions: [] })).rejects.toThrow(
    /no function is replaced/,
  );
  await expect(refusal({ module: 'other' })).rejects.toThrow(/kcare_pre_patch_patchable/);
  await expect(refusal({}, { level: 2 })).rejects.toThrow(/does not end with the level/);
});
