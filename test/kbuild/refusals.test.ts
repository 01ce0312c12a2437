// What a running kernel cannot take over is refused with all reasons: small units compiled as the kernel's own are.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { archiveKernels, kernelHeaders, kernelImage } from '../../fixtures/support/kernel-archive.js';
import { packageRoot } from '../../src/base/package-root.js';
import { defaultWorkDirectory } from '../../src/build/index.js';
import { Refusals } from '../../src/build/result.js';
import { compareKernelObjects } from '../../src/kbuild/compare-kernel.js';
import { exportedSymbols } from '../../src/kbuild/index.js';
import { KernelObject } from '../../src/kbuild/kernel-object.js';
import { prepareKernelTree } from '../../src/kbuild/kernel-packages.js';
import { ShippedKernel } from '../../src/kbuild/kernel-symbols.js';
import { compileKernelUnit, unitCommands } from '../../src/kbuild/kernel-unit.js';
import type { KernelRefusal, KernelRefusalCode } from '../../src/kbuild/refusals.js';
import { resolveCarried } from '../../src/kbuild/resolve-symbols.js';
import { shippedInKernel, type Exports } from '../../src/kbuild/shipped-code.js';

const work = defaultWorkDirectory();
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-kernel-refusals-'));
afterAll(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

let release: string;
let tree: string;
let shipped: ShippedKernel;
let exports: Exports;

beforeAll(async () => {
  const [kernel] = await archiveKernels();
  if (!kernel) throw new Error('no kernel');
  release = kernel.release;
  tree = await prepareKernelTree(work, kernel, []);
  shipped = await ShippedKernel.open((await kernelImage(kernel)).vmlinux);
  exports = await exportedSymbols(await kernelHeaders(kernel));
});

const headers = `
#include <linux/export.h>
#include <linux/init.h>
#include <linux/jump_label.h>
#include <linux/percpu.h>
#include <linux/printk.h>
int kcare_outside(int value);
`;

/** Compiles `before` and `after` in place of kernel/sys.c, and takes all that is said against the change. */
async function refusalsOf(before: string, after: string): Promise<KernelRefusal[]> {
  const command = (await unitCommands(tree, ['kernel/sys.c'])).get('kernel/sys.c');
  if (!command) throw new Error('kernel/sys.c is not compiled');
  const objects = [];
  for (const text of [before, after]) {
    const object = await compileKernelUnit(work, tree, command, `${headers}${text}`);
    objects.push(new KernelObject(fs.readFileSync(object)));
  }
  const [original, changed] = objects;
  if (!original || !changed) throw new Error('nothing was compiled');
  const refusals = new Refusals<KernelRefusalCode>();
  const comparison = compareKernelObjects(original, changed, refusals);
  resolveCarried(original, changed, comparison, shippedInKernel(original, shipped, exports), refusals);
  return refusals.all;
}

test('all reasons are given at once: code that runs once, no place for the tracer, data, static keys, exports', async () => {
  const text = (step: number, more: string): string => `
int __init kcare_start(void) { return kcare_outside(${step}); }
notrace int kcare_quiet(int value) { return kcare_outside(value + ${step}); }
int kcare_limit = ${step};
int kcare_sizes[${step + 1}] = { 1 };
DEFINE_PER_CPU(int, kcare_count) = 1;
DEFINE_STATIC_KEY_${step === 1 ? 'TRUE' : 'FALSE'}(kcare_key);
int kcare_keyed(int value) { return static_branch_likely(&kcare_key) ? kcare_outside(value) : 0; }
int kcare_shown(void) { return kcare_limit + kcare_sizes[0] + this_cpu_read(kcare_count); }
${more}
`;
  const more = `
static DEFINE_STATIC_KEY_FALSE(kcare_new_key);
static DEFINE_PER_CPU(int, kcare_new_count);
int kcare_added(int value)
{
  this_cpu_inc(kcare_new_count);
  return static_branch_unlikely(&kcare_new_key) ? kcare_outside(value) : value;
}
EXPORT_SYMBOL(kcare_added);
`;
  const refusals = await refusalsOf(text(1, ''), text(2, more));
  const messagesOf = (code: KernelRefusalCode): string =>
    refusals
      .filter((refusal) => refusal.code === code)
      .map(({ message }) => message)
      .join('\n');
  expect(messagesOf('KERNEL_INIT')).toMatch(/^kcare_start is in \.init\.text/);
  expect(messagesOf('KERNEL_UNPATCHABLE')).toMatch(/^kcare_quiet has no place for the tracer/);
  const data = messagesOf('CHANGED_DATA');
  expect(data).toMatch(/kcare_limit has other initial contents/);
  expect(data).toMatch(/kcare_sizes has another size \(12 bytes\)/);
  expect(data).toMatch(/kcare_new_count is new data of each processor/);
  const keys = messagesOf('KERNEL_STATIC_KEY');
  expect(keys).toMatch(/kcare_key has other initial contents/);
  expect(keys).toMatch(/kcare_added jumps by the static key kcare_new_key, which is new/);
  expect(messagesOf('KERNEL_ABI')).toMatch(/^kcare_added is newly exported/);
});

test('a function that the shipped kernel has otherwise is refused, and so is a name that stands for several things', async () => {
  // Many units of the kernel have a static function of this name, and none is the one that another unit could mean.
  const several = 't_show';
  expect(shipped.named(several).length).toBeGreaterThan(1);
  const text = (step: number): string => `
int ${several}(int value);
int prctl_set_auxv(int value);
noinline int prctl_set_auxv(int value) { return ${step === 1 ? 'value' : `${several}(value)`} + ${step}; }
`;
  const refusals = await refusalsOf(text(1), text(2));
  expect(refusals).toEqual([
    expect.objectContaining({ code: 'KERNEL_NOT_PROVED', function: 'prctl_set_auxv' }),
    expect.objectContaining({ code: 'UNRESOLVED_SYMBOL', function: 'prctl_set_auxv' }),
  ]);
});

test('a weak function is refused where the architecture has another one', async () => {
  const text = (step: number): string => `
#include <linux/sched/task.h>
int __weak arch_dup_task_struct(struct task_struct *dst, struct task_struct *src)
{
  return kcare_outside(${step});
}
`;
  const refusals = await refusalsOf(text(1), text(2));
  expect(shipped.named('arch_dup_task_struct').length).toBe(1);
  expect(refusals.map(({ code }) => code)).toContain('KERNEL_NOT_PROVED');
});

/** The command for a diff that changes files of the tree. */
function diffOf(...changes: (string | ((text: string) => string))[]) {
  const parts: string[] = [];
  for (let index = 0; index < changes.length; index += 2) {
    const [file, change] = [changes[index], changes[index + 1]];
    if (typeof file !== 'string' || typeof change !== 'function') throw new Error('pairs of file and change');
    const before = path.join(tree, file);
    const text = fs.readFileSync(before, 'utf8');
    if (change(text) === text) throw new Error(`${file} has not what is to be changed`);
    const after = path.join(directory, 'after');
    fs.writeFileSync(after, change(text));
    const labels = ['--label', `a/${file}`, '--label', `b/${file}`];
    parts.push(spawnSync('diff', ['-u', ...labels, before, after], { encoding: 'utf8' }).stdout);
  }
  const diff = path.join(directory, 'change.patch');
  fs.writeFileSync(diff, parts.join(''));
  const parameters = ['kernel', '--diff', diff, '--kernel', release, '--output', directory, '--json'];
  return spawnSync(path.join(packageRoot(), 'bin/kcare-build'), parameters, { encoding: 'utf8' });
}

test('comments and lines that move are nothing to do, in documentation and code', () => {
  const head = 'static int prctl_set_auxv(';
  const moved = (text: string): string => text.replace(head, `/* Says\n * more.\n */\n\n${head}`);
  const makefile = (text: string): string => `${text}# more\n`;
  const result = diffOf('kernel/sys.c', moved, 'LICENSES/preferred/MIT', makefile);
  expect(result.status, result.stderr).toBe(3);
  expect(JSON.parse(result.stdout)).toMatchObject({ outcome: 'unchanged', units: [], refusals: [] });
  // Other tokens, the same code, and every later line has another number: WARN_ON and pr_debug below do not change.
  const braces = diffOf('kernel/sys.c', (text) =>
    moved(text).replace(
      '\ttask_lock(current);\n\tmemcpy(mm->saved_auxv',
      '\t;\n\ttask_lock(current);\n\tmemcpy(mm->saved_auxv',
    ),
  );
  expect(braces.status, braces.stderr).toBe(3);
});

test('headers, heads of functions that modules may call, and types are refused before anything is compiled', () => {
  const result = diffOf(
    'include/linux/glob.h',
    (text) => text.replace('char const *str);', 'char const *str, int flags);'),
    'lib/glob.c',
    (text) => text.replace('char const *str)\n{', 'char const *str, int flags)\n{'),
    'net/netlink/af_netlink.c',
    (text) => text.replace('\tu32 portid;\n', '\tu32 portid;\n\tu32 more;\n'),
  );
  expect(result.status, result.stderr).toBe(2);
  const { refusals } = JSON.parse(result.stdout) as { refusals: (KernelRefusal & { help: string })[] };
  expect(refusals.map(({ code, message }) => [code, message])).toEqual([
    ['KERNEL_HEADER', 'include/linux/glob.h is part of many units'],
    ['KERNEL_ABI', 'the parameters or the result of glob_match changed, which modules may call'],
    [
      'CHANGED_TYPE',
      'the definition of struct netlink_compare_arg changed, of which the running kernel may hold values',
    ],
  ]);
  expect(refusals.every(({ help }) => help !== '')).toBe(true);
});

test('a diff that does not fit, and what is no diff, say so', () => {
  const result = diffOf('kernel/sys.c', (text) =>
    text.replace('task_lock(current);', 'task_lock(current );'),
  );
  expect(result.status).toBe(3);
  const file = path.join(directory, 'bad.patch');
  const run = (text: string) => {
    fs.writeFileSync(file, text);
    return spawnSync(
      path.join(packageRoot(), 'bin/kcare-build'),
      ['kernel', '--diff', file, '--kernel', release, '--json'],
      { encoding: 'utf8' },
    );
  };
  for (const text of [
    '--- a/kernel/sys.c\n+++ b/kernel/sys.c\n@@ -1,2 +1,2 @@\n-no such line\n+another\n not there either\n',
    'nothing of that kind',
  ]) {
    const answer = run(text);
    expect(answer.status).toBe(1);
    expect(JSON.parse(answer.stdout)).toMatchObject({ error: { code: 'SOURCE_PATCH_REJECTED' } });
  }
});

test('a malformed recipe names every field that is wrong', () => {
  const file = path.join(directory, 'bad.yaml');
  fs.writeFileSync(
    file,
    'name: Kernel\ndescription: x\nlevel: 0\nkernel: 6\nfixed: 6.1.1-1\ncves:\n  - { id: X-1, description: x, file: ../sys.c, functions: [] }\n',
  );
  const { status, stdout } = spawnSync(
    path.join(packageRoot(), 'bin/kcare-build'),
    ['kernel', file, '--json'],
    { encoding: 'utf8' },
  );
  expect(status).toBe(2);
  const { error } = JSON.parse(stdout) as { error: { code: string; details: { problems: string[] } } };
  expect(error.code).toBe('RECIPE_MALFORMED');
  const fields = error.details.problems.map((problem) => problem.split(':')[0]);
  expect(new Set(fields)).toEqual(new Set(['name', 'level', 'kernel', 'cves.0.file', 'cves.0.functions']));
});
