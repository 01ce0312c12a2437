// The harness that boots the archive's kernels: it tells success, failure and a panic apart, and carries files both ways.
import { expect, test } from 'vitest';
import { runGuest } from '../../fixtures/support/guest.js';
import { archiveKernels, kernelImage } from '../../fixtures/support/kernel-archive.js';

test('a guest runs the script, brings files back, and a panic has no exit code', async () => {
  const kernels = await archiveKernels();
  const newest = kernels.at(-1);
  if (!newest) throw new Error('no kernel');
  console.log(
    `kernels of the archive: ${kernels.map(({ release, version }) => `${release} (${version})`).join(', ')}`,
  );
  const kernel = await kernelImage(newest);
  const fine = await runGuest({ kernel, script: 'uname -r >/out/release; exit 7\n' });
  expect(fine.faults).toEqual([]);
  expect(fine.exitCode).toBe(7);
  expect(fine.files.get('release')?.toString().trim()).toBe(newest.release);
  const panicked = await runGuest({ kernel, script: 'echo c >/proc/sysrq-trigger\n' });
  expect(panicked.exitCode).toBeUndefined();
  expect(panicked.faults.join('\n')).toMatch(/Kernel panic/);
});
