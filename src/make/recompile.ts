// Compiles a recorded unit again, into an object of its own, in the place and in the way of the project's own build.
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { KcareError } from '../base/errors.js';
import { CodeObject } from '../build/code-object.js';
import { parseInlining, sectionFlags } from '../build/compile.js';
import { debugFlags } from '../build/debug-info.js';
import { relocationType, sectionFlag } from '../elf/index.js';
import { sourceOf, type RecordedCompile } from './records.js';
import { lastLines, runTool } from './tools.js';

export interface CompiledUnit {
  /** Its file, which later compiles of another unit leave alone. */
  readonly file: string;
  readonly object: CodeObject;
  /** "callee caller" pairs that the compiler inlined. */
  readonly inlined: readonly string[];
}

const families = new Map<string, Promise<'gcc' | 'clang'>>();

function familyOf({ compiler, directory }: RecordedCompile): Promise<'gcc' | 'clang'> {
  let family = families.get(compiler);
  if (!family) {
    family = runTool(compiler, ['--version'], { directory }).then(({ stdout }) =>
      /\bclang\b/i.test(stdout) ? 'clang' : 'gcc',
    );
    families.set(compiler, family);
  }
  return family;
}

/** Compiles into `output` with `extra` flags behind the recorded ones. Throws BUILD_TOOL_FAILED with the compiler's messages. */
export async function compileAgain(
  unit: RecordedCompile,
  output: string,
  extra: readonly string[] = [],
): Promise<CompiledUnit> {
  const family = await familyOf(unit);
  const report = `${output}.inlined`;
  const reporting = family === 'gcc' ? [`-fopt-info-inline-optimized=${report}`] : ['-Rpass=inline'];
  const { compiler, flags, directory, environment, source } = unit;
  const debug = extra.includes('-g') ? [] : ['-g0'];
  const words = [...flags, ...extra, ...debug, ...reporting, '-c', '-o', output, source];
  const result = await runTool(compiler, words, {
    directory,
    environment: { ...environment, LC_ALL: 'C.UTF-8' },
  });
  if (result.status !== 0) {
    throw new KcareError('BUILD_TOOL_FAILED', `${compiler} failed for ${source}: ${lastLines(result)}`, {
      command: [compiler, ...words].join(' '),
    });
  }
  const notes = family === 'clang' ? result.stderr : existsSync(report) ? await readFile(report, 'utf8') : '';
  await rm(report, { force: true });
  const inlined = family === 'gcc' ? parseInlining(notes) : parseRemarks(notes);
  return { file: output, object: new CodeObject(await readFile(output)), inlined };
}

/** Clang's `-Rpass=inline`: "remark: 'callee' inlined into 'caller' with …"; older versions write no quotes. */
function parseRemarks(text: string): string[] {
  const pattern = /remark: '?([^\s']+)'? inlined into '?([^\s']+)'? with/g;
  return [
    ...new Set([...text.matchAll(pattern)].map(([, callee = '', caller = '']) => `${callee} ${caller}`)),
  ].sort();
}

/** Addresses of 32 bits in code only work in programs at low addresses; new code is position-independent instead. */
export function needsPositionIndependence(object: CodeObject): boolean {
  return object.elf.sections
    .filter((section) => (section.flags & sectionFlag.alloc) !== 0)
    .some((section) =>
      object
        .relocations(section)
        .some(({ type }) => type === relocationType.abs32 || type === relocationType.abs32Signed),
    );
}

/**
 * Flags of both compiles that are compared. Without optimization GCC would put all strings into one section. Debug
 * information is without effect on code (GCC manual, -fcompare-debug).
 */
export async function comparisonFlags(
  unit: RecordedCompile,
  positionIndependent: boolean,
): Promise<string[]> {
  return [
    ...sectionFlags,
    ...debugFlags,
    ...((await familyOf(unit)) === 'gcc' ? ['-fmerge-constants'] : []),
    ...(positionIndependent ? ['-fPIE'] : []),
  ];
}

/** Whole paths of all files that a unit is made of; its source alone when the compiler cannot tell. */
export async function dependenciesOf(unit: RecordedCompile): Promise<string[]> {
  const { compiler, flags, directory, environment, source } = unit;
  const result = await runTool(compiler, [...flags, '-M', '-MT', 'unit', source], { directory, environment });
  if (result.status !== 0) return [sourceOf(unit)];
  const list = result.stdout.replace(/^unit:/, '').replaceAll('\\\n', ' ');
  const names = list.match(/(?:\\.|[^\s\\])+/g) ?? [];
  return names.map((name) => path.resolve(directory, name.replace(/\\(.)/g, '$1').replaceAll('$$', '$')));
}
