// A library in two versions with a patch made by the builder, and programs that unwind through its function.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../src/base/package-root.js';
import type { PatchToApply } from '../../src/engine/index.js';
import { writePatch, type Patch } from '../../src/patchfile/index.js';
import { patchSmallTree } from '../build/small-tree.js';

/** What `relay` adds to the result of the function that it calls. */
const source = (added: number): string => `
int calls;
int relay(int (*callee)(void *), void *argument) {
  calls += ${added};
  return callee(argument) + ${added};
}
`;

export class UnwindingWorkshop {
  readonly directory = mkdtempSync(join(tmpdir(), 'kcare-unwinding-'));
  readonly library = join(this.directory, 'libunit.so');
  readonly program = join(this.directory, 'unwinding');
  /** In C, and without an unwinder at first. */
  readonly late = join(this.directory, 'late');
  /** Forks while a thread holds the lock of the unwinder. */
  readonly orphan = join(this.directory, 'orphan');
  private readonly patches = new Map<number, Patch>();

  /** `answer` of the program is 41 without a patch, and 41 + level with one. */
  async build(levels: readonly number[]): Promise<void> {
    for (const level of levels) {
      const made = await patchSmallTree({
        before: source(1),
        after: source(1 + level),
        functions: ['relay'],
      });
      if (!made.patch) throw new Error(`The patch was refused: ${made.codes.join(' ')}`);
      copyFileSync(join(made.directory, 'running', 'libunit.so'), this.library);
      rmSync(made.directory, { recursive: true, force: true });
      const patch = { ...made.patch, metadata: { ...made.patch.metadata, level } };
      this.patches.set(level, patch);
      writeFileSync(this.file(level), writePatch(patch));
    }
    const flags = ['-O2', '-g', '-Wall', '-Wextra', '-Werror', '-pthread'];
    const compile = (compiler: string, output: string, source: string, more: readonly string[]): void => {
      const file = join(packageRoot(), 'fixtures', 'engine', source);
      execFileSync(compiler, [...flags, '-o', output, file, this.library, ...more]);
    };
    compile('g++', this.program, 'unwinding.cc', ['-std=c++17', '-rdynamic']);
    compile('cc', this.orphan, 'orphan.c', ['-std=gnu11', '-D_GNU_SOURCE', '-fPIE', '-lgcc_s']);
    compile('cc', this.late, 'late.c', ['-std=c11', '-D_GNU_SOURCE']);
  }

  file(level: number): string {
    return join(this.directory, `${level}.kpatch`);
  }

  patch(level: number): PatchToApply {
    const patch = this.patches.get(level);
    if (!patch) throw new Error(`no level ${level}`);
    const sha256 = createHash('sha256').update(writePatch(patch)).digest('hex');
    return { patch, patchset: 'U20261122_01', sha256 };
  }

  close(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
