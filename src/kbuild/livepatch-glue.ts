// The C source that tells the kernel what a livepatch module replaces, and what the module says about itself.
import type { KernelCve } from '../patchfile/index.js';
import type { Replacement } from './carry-unit.js';

/** What a module says about itself: docs/kernel.md. */
export interface ModuleDescription {
  readonly level: number;
  /** Build-id of the kernel's vmlinux, in hexadecimal. */
  readonly kernelBuildId: string;
  /** The release that the kernel is worth with the patch. */
  readonly effective: string;
  readonly packageVersion?: string;
  readonly cves: readonly KernelCve[];
}

/** The functions of one object of the kernel that are replaced. */
export interface PatchedObject {
  /** Undefined: the kernel itself. */
  readonly module: string | undefined;
  readonly replacements: readonly Replacement[];
}

/** The four moments at which a patch may run code: struct klp_callbacks. */
export const callbackMoments = ['pre_patch', 'post_patch', 'pre_unpatch', 'post_unpatch'] as const;

/** `hasCallbacks`: there are further sources, which may define callbacks (include/kcare-kernel-patch.h). */
export function livePatchGlue(
  objects: readonly PatchedObject[],
  description: ModuleDescription,
  hasCallbacks: boolean,
): string {
  return [
    '// SPDX-License-Identifier: GPL-2.0-only',
    '#include <linux/livepatch.h>',
    '#include <linux/module.h>',
    ...objects.flatMap(functionTable),
    ...(hasCallbacks ? objects.flatMap(callbackDeclarations) : []),
    'static struct klp_object objects[] = {',
    ...objects.flatMap((object, index) => objectEntry(object, index, hasCallbacks)),
    '{} };',
    'static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects, .replace = true };',
    'static int __init kcare_patch_init(void) { return klp_enable_patch(&patch); }',
    'static void __exit kcare_patch_exit(void) { }',
    'module_init(kcare_patch_init);',
    'module_exit(kcare_patch_exit);',
    'MODULE_LICENSE("GPL");',
    ...informationOf(description).map(([key, value]) => `MODULE_INFO(${key}, ${quoted(value)});`),
    '',
  ].join('\n');
}

function functionTable({ replacements }: PatchedObject, index: number): string[] {
  const local = (number: number): string => `replacement_${index}_${number}`;
  return [
    ...replacements.map(({ symbol }, number) => `extern void ${local(number)}(void) asm(${quoted(symbol)});`),
    `static struct klp_func functions_${index}[] = {`,
    ...replacements.map(
      ({ name, position }, number) =>
        `{ .old_name = ${quoted(name)}, .new_func = ${local(number)}, .old_sympos = ${position} },`,
    ),
    '{} };',
  ];
}

const objectName = ({ module = 'vmlinux' }: PatchedObject): string => module;

function callbackDeclarations(object: PatchedObject): string[] {
  return callbackMoments.map((moment) => {
    const result = moment === 'pre_patch' ? 'int' : 'void';
    return `extern ${result} __weak kcare_${moment}_${objectName(object)}(struct klp_object *object);`;
  });
}

function objectEntry(object: PatchedObject, index: number, hasCallbacks: boolean): string[] {
  const callbacks = callbackMoments.map((moment) => `.${moment} = kcare_${moment}_${objectName(object)},`);
  return [
    `{ .funcs = functions_${index},`,
    ...(object.module === undefined ? [] : [`.name = ${quoted(object.module)},`]),
    ...(hasCallbacks ? ['.callbacks = {', ...callbacks, '},'] : []),
    '},',
  ];
}

function informationOf(description: ModuleDescription): [string, string][] {
  const { level, kernelBuildId, effective, packageVersion, cves } = description;
  const known = (word: string): string => (word === '' ? '-' : word);
  return [
    ['livepatch', 'Y'],
    ['kcare_kernel', kernelBuildId],
    ['kcare_level', String(level)],
    ['kcare_effective', effective],
    ...(packageVersion === undefined
      ? []
      : [['kcare_package_version', packageVersion] satisfies [string, string]]),
    ...cves.map(({ id, score, url, description: text }): [string, string] => [
      'kcare_cve',
      `${id} ${known(score)} ${known(url)} ${text}`.trimEnd(),
    ]),
  ];
}

/** A string of C. */
function quoted(text: string): string {
  const escaped = [...Buffer.from(text, 'utf8')].map((byte) =>
    byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c && byte !== 0x3f
      ? String.fromCharCode(byte)
      : `\\${byte.toString(8).padStart(3, '0')}`,
  );
  return `"${escaped.join('')}"`;
}
