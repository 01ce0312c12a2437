// Two fixes of the distribution's kernel as live patches: its own source, compiled as it was, against the flaws in a guest.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { runGuest } from '../../fixtures/support/guest.js';
import {
  archiveKernels,
  kernelHeaders,
  kernelImage,
  kernelSources,
} from '../../fixtures/support/kernel-archive.js';
import { kernelBuildId } from '../../fixtures/support/kernel-modules.js';
import { compileUnit } from '../../fixtures/support/kernel-units.js';
import { packageRoot } from '../../src/base/package-root.js';
import { emitLivepatchModule } from '../../src/kbuild/index.js';

const auxv = { file: 'kernel/sys.c', function: 'prctl_set_auxv' };
const offsets = { file: 'kernel/time/namespace.c', function: 'proc_timens_set_offset' };

/** Replaces one place, or fails: the archive's oldest kernel has the flaw, or another must be chosen here. */
const replacing = (old: string, replacement: string) => (text: string) => {
  if (text.split(old).length !== 2) throw new Error(`The source has not exactly one "${old}".`);
  return text.replace(old, replacement);
};

const fixAuxv = replacing(
  'memcpy(mm->saved_auxv, user_auxv, len);',
  'memcpy(mm->saved_auxv, user_auxv, sizeof(user_auxv));',
);
const fixOffsets = replacing(
  'tp = timespec64_add(tp, off->val);',
  `if (off->val.tv_nsec < 0 || off->val.tv_nsec >= NSEC_PER_SEC) {
     err = -EINVAL;
     goto out;
   }
   tp = timespec64_add(tp, off->val);`,
);

test('a guest goes from vulnerable to level 1, 2, 1 and vulnerable; a function that needs static data of the kernel works', async () => {
  const [kernel] = await archiveKernels();
  if (!kernel) throw new Error('no kernel');
  console.log(`kernel under test: ${kernel.release} (${kernel.version})`);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-fixes-'));
  try {
    const image = await kernelImage(kernel);
    const headers = await kernelHeaders(kernel);
    const sources = await kernelSources(kernel, [auxv.file, offsets.file]);
    const unit = (fix: typeof auxv, change: (text: string) => string) =>
      compileUnit(headers, path.join(directory, fix.function), {
        ...{ source: path.join(sources, fix.file), changedFunctions: [fix.function], change },
      });
    const units = [await unit(auxv, fixAuxv), await unit(offsets, fixOffsets)];
    const files: Record<string, string> = {};
    for (const level of [1, 2]) {
      const begin = performance.now();
      const module = await emitLivepatchModule(units.slice(0, level), {
        ...{ name: `kcare_fixes_${level}`, level, kernelBuildId: kernelBuildId(image), headers },
        ...{ effective: `${kernel.version}.${level}`, cves: [] },
      });
      console.log(`module of level ${level}: ${Math.round(performance.now() - begin)} ms`);
      files[`/kcare_fixes_${level}.ko`] = path.join(directory, `kcare_fixes_${level}.ko`);
      fs.writeFileSync(path.join(directory, `kcare_fixes_${level}.ko`), module);
    }
    const triggers = path.join(directory, 'triggers');
    const source = path.join(packageRoot(), 'fixtures/kernel/triggers.c');
    execFileSync('gcc', ['-static', '-O1', '-Wall', '-Werror', '-o', triggers, source]);
    files['/triggers'] = triggers;
    const { console: text, ...result } = await runGuest({ kernel: image, script, files });
    expect(result.faults).toEqual([]);
    expect(result.exitCode, text).toBe(0);
    const lines = result.files.get('lines')?.toString().trim().split('\n');
    const states = ['none', 'level 1', 'level 2', 'level 1 again', 'none again'];
    const words = [
      ['VULNERABLE', 'VULNERABLE'],
      ['FIXED', 'VULNERABLE'],
      ['FIXED', 'FIXED'],
      ['FIXED', 'VULNERABLE'],
      ['VULNERABLE', 'VULNERABLE'],
    ];
    expect(lines).toEqual(
      states.flatMap((state, index) => [
        state,
        `${auxv.function} ${words[index]?.[0] ?? ''}`,
        `${offsets.function} ${words[index]?.[1] ?? ''}`,
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
level() { insmod /kcare_fixes_$1.ko; settle kcare_fixes_$1; }
{
  see none
  level 1
  see 'level 1'
  level 2
  vanish kcare_fixes_1
  see 'level 2'
  level 1
  vanish kcare_fixes_2
  see 'level 1 again'
  echo 0 >/sys/kernel/livepatch/kcare_fixes_1/enabled
  vanish kcare_fixes_1
  see 'none again'
} >/out/lines
`;
