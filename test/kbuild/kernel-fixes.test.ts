// Fixes of the distribution's kernel as live patches: made by the command from its recipe, against the flaws in a guest.
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { runGuest } from '../../fixtures/support/guest.js';
import { archiveKernels, kernelImage } from '../../fixtures/support/kernel-archive.js';
import { packageRoot } from '../../src/base/package-root.js';

const recipe = path.join(packageRoot(), 'recipes/debian12/kernel.yaml');

/** What fixtures/kernel/triggers.c shows, in its order; the first alone is fixed by level 1. */
const shown = ['prctl_set_auxv', 'proc_timens_set_offset', 'fcntl_rw_hint', 'fanotify_ioctl'];

/** The module that the command makes for `release`. */
function build(release: string, output: string, level: number, ...more: string[]): string {
  const begin = performance.now();
  const { status, stdout, stderr } = spawnSync(
    path.join(packageRoot(), 'bin/kcare-build'),
    [
      ...['kernel', recipe, '--kernel', release, '--level', String(level)],
      ...['--output', output, '--json', ...more],
    ],
    { encoding: 'utf8' },
  );
  // 3: the archive's oldest kernel has the fixes by now, and the recipe needs those of a newer one.
  expect(status, `${stdout}${stderr}`).toBe(0);
  const { file, units } = JSON.parse(stdout) as { file: string; units: { changed: string[] }[] };
  const count = units.flatMap(({ changed }) => changed).length;
  console.log(`level ${level}: ${count} functions, ${Math.round(performance.now() - begin)} ms`);
  return file;
}

test('a guest goes from vulnerable to level 1, 2, 1 and vulnerable; level 2 holds all fixes of the recipe, in modules too', async () => {
  const [kernel] = await archiveKernels();
  if (!kernel) throw new Error('no kernel');
  console.log(`kernel under test: ${kernel.release} (${kernel.version})`);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-fixes-'));
  try {
    const image = await kernelImage(kernel);
    const files: Record<string, string> = {
      '/kcare_fixes_1.ko': build(kernel.release, directory, 1, '--cve', 'auxv-length'),
      '/kcare_fixes_2.ko': build(kernel.release, directory, 2),
    };
    const triggers = path.join(directory, 'triggers');
    const source = path.join(packageRoot(), 'fixtures/kernel/triggers.c');
    execFileSync('gcc', ['-static', '-O1', '-Wall', '-Werror', '-o', triggers, source]);
    files['/triggers'] = triggers;
    for (const [name, place] of [
      ['binfmt_misc', 'fs'],
      ['af_alg', 'crypto'],
    ] as const)
      files[`/${name}.ko`] = path.join(image.modules, 'kernel', place, `${name}.ko`);
    const { console: text, ...result } = await runGuest({ kernel: image, script, files });
    expect(result.faults).toEqual([]);
    expect(result.exitCode, text).toBe(0);
    const lines = result.files.get('lines')?.toString().trim().split('\n');
    const fixedIn: [state: string, fixed: number][] = [
      ['none', 0],
      ['level 1', 1],
      ['level 2', shown.length],
      ['level 1 again', 1],
      ['none again', 0],
    ];
    expect(lines).toEqual(
      fixedIn.flatMap(([state, fixed]) => [
        state,
        ...shown.map((name, index) => `${name} ${index < fixed ? 'FIXED' : 'VULNERABLE'}`),
      ]),
    );
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

const script = `
set -e
see() { echo "$1"; /triggers; }
settle() { until [ "$(cat /sys/kernel/livepatch/$1/transition)" = 0 ]; do :; done; }
vanish() { while [ -e /sys/kernel/livepatch/$1 ]; do :; done; rmmod $1; }
level() { insmod /kcare_fixes_$1.ko; settle kcare_kernel_$1; }
{
  see none
  insmod /binfmt_misc.ko
  level 1
  see 'level 1'
  level 2
  vanish kcare_kernel_1
  see 'level 2'
  insmod /af_alg.ko
  mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
  echo ':kcare:M::kcare::/bin/busybox:F' >/proc/sys/fs/binfmt_misc/register
  grep -q enabled /proc/sys/fs/binfmt_misc/kcare
  echo -1 >/proc/sys/fs/binfmt_misc/status
  level 1
  vanish kcare_kernel_2
  see 'level 1 again'
  echo 0 >/sys/kernel/livepatch/kcare_kernel_1/enabled
  vanish kcare_kernel_1
  see 'none again'
} >/out/lines
`;
