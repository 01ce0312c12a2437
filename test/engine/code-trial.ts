// A small unit built, stripped and patched by the real builder, and the patch tried in a real process.
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { released } from '../../fixtures/support/handmade.js';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { apply, unload } from '../../src/engine/index.js';
import { patchSmallTree, type SmallResult, type SmallTree } from '../build/small-tree.js';
import { ask, expectRefused, patient } from './conditions.js';

export const host = join(import.meta.dirname, '../../fixtures/code/host.c');

/** A question to fixtures/code/host.c and its answer. */
type Dialogue = readonly (readonly [question: string, answer: string])[];

export interface Trial extends SmallTree {
  /** How the process gets the unit: linked against the library, by dlopen, or linked into the program. */
  readonly how: 'linked' | 'dlopen' | 'program';
  /** What objdump must show of the unit, so that the test is about what it says. */
  readonly shows?: RegExp;
  readonly hostFlags?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly original: Dialogue;
  readonly patched: Dialogue;
  /** After the patch was removed. */
  readonly restored: Dialogue;
}

const directories: string[] = [];

export function removeTrials(): void {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
}

/** A library beside the unit, for interposition and foreign symbols; its path. */
export function compileHelper(directory: string, name: string, source: string, ...flags: string[]): string {
  const file = join(directory, name);
  writeFileSync(`${file}.c`, source);
  execFileSync('gcc', ['-O2', '-fPIC', '-shared', `-Wl,-soname,${name}`, '-o', file, `${file}.c`, ...flags]);
  return file;
}

async function startHost(
  trial: Pick<Trial, 'how' | 'hostFlags' | 'environment'>,
  { file, directory }: SmallResult,
): Promise<Program> {
  if (trial.how === 'program') return Program.start(file, []);
  const program = join(directory, 'host');
  const linked = trial.how === 'linked' ? ['-Wl,--no-as-needed', file] : [];
  const flags = ['-O2', '-pthread', ...(trial.hostFlags ?? []), '-o', program, host, ...linked];
  execFileSync('gcc', [...flags, `-Wl,-rpath,${join(directory, 'running')}`]);
  const { environment = {} } = trial;
  return Program.start(program, trial.how === 'dlopen' ? [file] : [], { environment });
}

async function expectDialogue(program: Program, dialogue: Dialogue): Promise<void> {
  for (const [question, answer] of dialogue) expect(await ask(program, question)).toBe(answer);
}

/** Builds the patch, holds the dialogues before, with and after it, and looks for traces (R7). */
export async function expectTrial(trial: Trial): Promise<SmallResult> {
  const made = await patchSmallTree({ ...trial, ...(trial.how === 'program' && { program: host }) });
  directories.push(made.directory);
  if (trial.shows)
    expect(execFileSync('objdump', ['-dr', made.unit], { encoding: 'utf8' })).toMatch(trial.shows);
  expect(made.refusals).toEqual([]);
  if (!made.patch) throw new Error('There is no patch.');
  const program = await startHost(trial, made);
  try {
    await program.waitForLine(/^ready/);
    await expectDialogue(program, trial.original);
    const before = readMappings(program.pid);
    const report = await apply(program.pid, [released(made.patch)], patient);
    expect(report.error?.message).toBeUndefined();
    expect(report.result).toBe('applied');
    await expectDialogue(program, trial.patched);
    expect(await unload(program.pid, patient)).toMatchObject({ result: 'unloaded', objects: [] });
    await expectDialogue(program, trial.restored);
    expect(countChangedCodeBytes(program.pid, made.file)).toBe(0);
    expect(readMappings(program.pid)).toEqual(before);
  } finally {
    await program.end();
  }
  return made;
}

/** The patch is refused by a process that loads the unit by dlopen, because of a symbol, and nothing happens there. */
export async function expectProblem(
  made: SmallResult,
  environment: Readonly<Record<string, string>>,
  message: RegExp,
): Promise<void> {
  directories.push(made.directory);
  expect(made.refusals).toEqual([]);
  if (!made.patch) throw new Error('There is no patch.');
  const patch = released(made.patch);
  const program = await startHost({ how: 'dlopen', environment }, made);
  try {
    await program.waitForLine(/^ready/);
    await expectRefused(
      program.pid,
      () => apply(program.pid, [patch], patient),
      'SYMBOL_UNRESOLVED',
      message,
    );
  } finally {
    await program.end();
  }
}
