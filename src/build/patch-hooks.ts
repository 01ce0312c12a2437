// Hooks and update functions that the patched source marks by include/kcare-patch.h, and what they may call.
import { relocationType, type ElfSection } from '../elf/index.js';
import { hookKinds, type HookKind } from '../patchfile/index.js';
import { baseName, type CodeObject, type ObjectFunction } from './code-object.js';
import { useOf } from './instructions.js';
import type { Refusals } from './result.js';

export interface MarkedHook {
  readonly kind: HookKind;
  readonly function: ObjectFunction;
  readonly undo: ObjectFunction | undefined;
}

/** struct kcare_hook of the header: kind, order in the source, function, undo. */
const orderOffset = 4;
const recordSize = 24;
const functionOffset = 8;
const undoOffset = 16;
const hookSection = '.kcare.hooks';
const convertsSection = '.kcare.converts';

/** Sections by which a source talks to the builder; no data of the program. */
export const isMark = ({ name }: ElfSection): boolean => name === hookSection || name === convertsSection;

/** All hooks of a compiled unit, in the order of the source. */
function hooksIn(object: CodeObject): MarkedHook[] {
  return object.elf.sections
    .filter(({ name }) => name === hookSection)
    .flatMap((section) => {
      const pointers = new Map<number, ObjectFunction>();
      for (const relocation of object.relocations(section)) {
        const { reference, addend } = object.resolve(relocation);
        if (relocation.type !== relocationType.abs64 || reference.kind !== 'code') continue;
        const target = object.functionAt(reference.section, reference.offset + addend);
        if (target) pointers.set(relocation.offset, target);
      }
      return (
        object.symbols
          .filter(({ sectionIndex, type }) => sectionIndex === section.index && type === 'object')
          .map(({ value }) => value)
          // Compilers put data in any order.
          .sort((left, right) => orderOf(section, left) - orderOf(section, right))
          .flatMap((at): MarkedHook[] => {
            const record = Buffer.from(section.bytes.subarray(at, at + recordSize));
            const kind = record.length === recordSize ? hookKinds[record.readUInt32LE(0) - 1] : undefined;
            const target = pointers.get(at + functionOffset);
            return kind && target ? [{ kind, function: target, undo: pointers.get(at + undoOffset) }] : [];
          })
      );
    });
}

function orderOf({ bytes }: ElfSection, at: number): number {
  return at + recordSize <= bytes.length ? Buffer.from(bytes).readUInt32LE(at + orderOffset) : 0;
}

/** The hooks that only the patched unit has; one that the project has had already belongs to an earlier patch. */
export function newHooks(original: CodeObject, patched: CodeObject): MarkedHook[] {
  const known = new Set(hooksIn(original).map(({ kind, function: { base } }) => `${kind} ${base}`));
  return hooksIn(patched).filter(({ kind, function: { base } }) => !known.has(`${kind} ${base}`));
}

/** Variables and types that an update function of the patched unit converts. */
export function convertedNames(original: CodeObject, patched: CodeObject): Set<string> {
  if (!newHooks(original, patched).some(({ kind }) => kind === 'update')) return new Set();
  const known = new Set(namesIn(original));
  return new Set(namesIn(patched).filter((name) => !known.has(name)));
}

function namesIn(object: CodeObject): string[] {
  return object.elf.sections
    .filter(({ name }) => name === convertsSection)
    .flatMap(({ bytes }) => Buffer.from(bytes).toString('latin1').split('\0'))
    .filter((name) => name !== '');
}

/** Functions of the C library that take no lock, allocate nothing and wait for nothing. */
const permitted: ReadonlySet<string> = new Set([
  ...['memcpy', 'memmove', 'memset', 'memcmp', 'memchr', 'bcmp', '__stack_chk_fail'],
  ...['strlen', 'strnlen', 'strcmp', 'strncmp', 'strchr', 'strrchr', 'strcpy', 'strncpy'],
  ...['__memcpy_chk', '__memmove_chk', '__memset_chk', '__strcpy_chk', '__strncpy_chk'],
]);

/** Refuses calls of anything else, in a hook and in all functions of its unit that it calls. */
export function checkCalls(object: CodeObject, hook: ObjectFunction, refusals: Refusals): void {
  const seen = new Set([hook]);
  for (const part of seen) {
    for (const relocation of part.relocations) {
      const { reference, addend } = object.resolve(relocation);
      if (reference.kind === 'code') {
        const callee = object.functionAt(reference.section, reference.offset + Math.max(addend + 4, 0));
        if (callee) seen.add(callee);
      } else if (reference.kind === 'external') {
        const isCall = useOf(Buffer.from(part.bytes), relocation.offset) !== 'value';
        if (!isCall || permitted.has(reference.name)) continue;
        const through = part === hook ? '' : ` through ${baseName(part.name)}`;
        const message = `${hook.name} calls ${reference.name}${through}; hooks may only call functions of their own file and such as memcpy, which take no locks`;
        refusals.add('HOOK', message, hook.name);
      }
    }
  }
}
