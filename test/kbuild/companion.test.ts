// kmod/ against what the archive holds today: no warning of the compiler or of sparse on any series of kernels, and none
// of the kernel's own style check.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  archiveKernels,
  kernelStyleCheck,
  newestOfEachSeries,
} from '../../fixtures/support/kernel-archive.js';
import { buildCompanion } from '../../fixtures/support/kernel-modules.js';
import { packageRoot } from '../../src/base/package-root.js';

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-companion-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

it('builds without a remark for the newest kernel of each series of the archive', async () => {
  const kernels = await newestOfEachSeries();
  expect(kernels.length).toBeGreaterThan(0);
  for (const [index, kernel] of kernels.entries()) {
    console.info(`kcare.ko for ${kernel.release}`);
    expect(existsSync(await buildCompanion(kernel, join(directory, `${index}`)))).toBe(true);
  }
});

it('is written in the style of the kernel, but for the one thing that a module for several kernels needs', async () => {
  const [kernel] = await archiveKernels();
  if (!kernel) throw new Error('The archive has no kernel.');
  const sources = ['kcare.c', 'kcare.h'].map((name) => join(packageRoot(), 'kmod', name));
  // It asks which kernel it is built for.
  const options = ['--no-tree', '--strict', '--ignore', 'LINUX_VERSION_CODE,CONSTANT_COMPARISON', '--file'];
  const output = execFileSync('perl', [await kernelStyleCheck(kernel), ...options, ...sources], {
    encoding: 'utf8',
  });
  expect(output.match(/^total: .*$/gm)).toEqual(
    sources.map(
      () => expect.stringMatching(/^total: 0 errors, 0 warnings, 0 checks, \d+ lines checked$/) as string,
    ),
  );
});
