// From the changed units of a kernel to a livepatch module that it can load.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';
import { run } from '../build/index.js';
import { levelOfModule, readKernelModule } from '../patchfile/index.js';
import { carryUnit } from './carry-unit.js';
import type { ChangedUnit } from './changed-unit.js';
import {
  callbackMoments,
  livePatchGlue,
  type ModuleDescription,
  type PatchedObject,
} from './livepatch-glue.js';
import { resolvePlaceholders } from './livepatch-relocations.js';
import { parsePlaceholder } from './livepatch-symbols.js';
import { parseElf, readSymbols } from '../elf/index.js';
import { signModule, type SigningKey } from './module-signature.js';

export interface ModuleFacts extends ModuleDescription {
  /** kcare_<anything>_<level>. */
  readonly name: string;
  /** Directory that modules for this kernel are built against: /lib/modules/RELEASE/build, or an unpacked package. */
  readonly headers: string;
  /** Files of C that are compiled into the module: callbacks and what they need (include/kcare-kernel-patch.h). */
  readonly sources?: readonly string[];
  /** For kernels that demand it. */
  readonly signingKey?: SigningKey;
}

/**
 * The module. Equal units and facts give equal bytes. Throws KERNEL_PATCH_REFUSED with all reasons, BUILD_TOOL_FAILED,
 * ELF_MALFORMED.
 */
export async function emitLivepatchModule(
  units: readonly ChangedUnit[],
  facts: ModuleFacts,
): Promise<Buffer> {
  if (levelOfModule(facts.name) !== facts.level)
    throw new KcareError('USAGE', `The name ${facts.name} does not end with the level ${facts.level}.`);
  const directory = await mkdtemp(path.join(tmpdir(), 'kcare-module-'));
  try {
    const objects = await carryAll(units, directory);
    const linked = await link(directory, objects, units.length, facts);
    const module = Buffer.from(resolvePlaceholders(linked));
    readKernelModule(module);
    return facts.signingKey === undefined ? module : await signModule(module, facts.signingKey);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Writes an object for each unit, and says what they replace. */
async function carryAll(units: readonly ChangedUnit[], directory: string): Promise<PatchedObject[]> {
  const refusals: string[] = [];
  const byModule = new Map<string | undefined, PatchedObject['replacements']>();
  for (const [number, unit] of units.entries()) {
    const carried = carryUnit(unit, await readFile(unit.changed), number);
    refusals.push(...carried.refusals);
    byModule.set(unit.module, [...(byModule.get(unit.module) ?? []), ...carried.replacements]);
    await writeFile(path.join(directory, `${unitObject(number)}_shipped`), carried.bytes);
    // modpost asks what each object is made of, for srcversion.
    const record = `source_${unitObject(number)} := ${directory}/glue.c\n\ndeps_${unitObject(number)} := \\\n\n`;
    await writeFile(path.join(directory, `.${unitObject(number)}.cmd`), record);
  }
  const objects = [...byModule].map(([module, replacements]) => ({ module, replacements }));
  if (objects.every(({ replacements }) => replacements.length === 0))
    refusals.push('no function is replaced');
  if (refusals.length > 0) throw refused(refusals);
  return objects;
}

const unitObject = (number: number): string => `unit_${number}.o`;
const sourceObject = (number: number): string => `source_${number}.o`;

async function link(
  directory: string,
  objects: readonly PatchedObject[],
  units: number,
  facts: ModuleFacts,
): Promise<Uint8Array> {
  const { name, headers, sources = [] } = facts;
  await writeFile(path.join(directory, 'glue.c'), livePatchGlue(objects, facts, sources.length > 0));
  for (const [number, source] of sources.entries())
    await writeFile(path.join(directory, sourceObject(number).replace(/o$/, 'c')), await readFile(source));
  const parts = [
    'glue.o',
    ...sources.map((_, number) => sourceObject(number)),
    ...Array.from({ length: units }, (_, number) => unitObject(number)),
  ];
  await writeFile(
    path.join(directory, 'Kbuild'),
    [
      `obj-m := ${name}.o`,
      `${name}-y := ${parts.join(' ')}`,
      `ccflags-y := -I${path.join(packageRoot(), 'include')}`,
      '',
    ].join('\n'),
  );
  // Placeholders are undefined to modpost; what else is, is refused below. Debug information would hold paths.
  const make = ['-C', headers, `M=${directory}`, 'KBUILD_MODPOST_WARN=1', 'KCFLAGS=-g0', 'modules'];
  await run('make', make, { environment: { MAKEFLAGS: '' } });
  const linked = await readFile(path.join(directory, `${name}.ko`));
  await checkSymbols(linked, objects, headers);
  return linked;
}

/** Every undefined symbol must be a placeholder or exported, every callback belong to an object that is patched. */
async function checkSymbols(
  linked: Uint8Array,
  objects: readonly PatchedObject[],
  headers: string,
): Promise<void> {
  const symbols = readSymbols(parseElf(linked), '.symtab');
  const exported = await exportedSymbols(headers);
  const refusals = symbols
    .filter(
      ({ index, sectionIndex, binding, name }) =>
        index !== 0 &&
        sectionIndex === 0 &&
        binding !== 'weak' &&
        !parsePlaceholder(name) &&
        !exported.has(name),
    )
    .map(({ name }) => `${name} is needed, and the kernel does not export it`);
  const known = new Set(
    objects.flatMap(({ module = 'vmlinux' }) => callbackMoments.map((moment) => `kcare_${moment}_${module}`)),
  );
  for (const { name, sectionIndex } of symbols)
    if (sectionIndex !== 0 && /^kcare_(?:pre|post)_(?:un)?patch_/.test(name) && !known.has(name))
      refusals.push(`${name}: the patch replaces nothing there`);
  if (refusals.length > 0) throw refused(refusals);
}

/** Name → owner (`vmlinux` or a module) in Module.symvers: "CRC<tab>NAME<tab>OWNER<tab>KIND<tab>NAMESPACE". */
export async function exportedSymbols(headers: string): Promise<ReadonlyMap<string, string>> {
  const text = await readFile(path.join(headers, 'Module.symvers'), 'utf8');
  return new Map(
    text.split('\n').flatMap((line): [string, string][] => {
      const [, name, owner] = line.split('\t');
      return name === undefined || owner === undefined ? [] : [[name, path.basename(owner)]];
    }),
  );
}

function refused(reasons: readonly string[]): KcareError {
  return new KcareError(
    'KERNEL_PATCH_REFUSED',
    `No module is made:\n${[...new Set(reasons)].map((reason) => `  ${reason}`).join('\n')}`,
  );
}
