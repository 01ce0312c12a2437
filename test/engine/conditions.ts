// Targets under a condition: compiles them, starts them, and holds one to "patched and unloaded without a trace".
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import { apply, inspect, unload, type PatchToApply } from '../../src/engine/index.js';
import { handmadePatch, released, returns } from '../../fixtures/support/handmade.js';

export const now = { waitMs: 0, dryRun: false };
export const patient = { waitMs: 5000, dryRun: false };

const sources = join(import.meta.dirname, '../../fixtures/engine');
const flags = '-std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror'.split(' ');

function compile(output: string, files: readonly string[], ...more: readonly string[]): string {
  execFileSync('cc', [...flags, ...more, '-o', output, ...files.map((file) => join(sources, file))]);
  return output;
}

/** Its libraries and programs are readable by everybody: some targets are other users. */
export class Workshop {
  readonly directory = mkdtempSync(join(tmpdir(), 'kcare-conditions-'));
  readonly library: string;
  readonly program: string;
  private readonly running: Program[] = [];

  constructor() {
    chmodSync(this.directory, 0o755);
    mkdirSync(join(this.directory, 'inside'));
    this.library = this.compileLibrary('libanswers.so');
    this.program = compile(join(this.directory, 'conditions'), ['conditions.c', 'confine.c'], '-pthread');
  }

  /** A program that makes itself hard to read. */
  compileHostile(): string {
    return compile(join(this.directory, 'hostile'), ['hostile.c'], '-pthread');
  }

  /** The library under another name and with another build-id. */
  compileLibrary(name: string, source = 'answers.c'): string {
    const named = `-Wl,--build-id,-soname,${name}`;
    return compile(join(this.directory, name), [source], '-fPIC', '-shared', named);
  }

  /** A program of these sources, named after the first. */
  compileOf(files: readonly string[], ...options: readonly string[]): string {
    return compile(join(this.directory, files[0]?.replace(/\.c$/, '') ?? ''), files, ...options);
  }

  compileInto(name: string, files: readonly string[], ...options: readonly string[]): string {
    return compile(join(this.directory, name), files, ...options);
  }

  /** A program that has the function itself, linked with these flags. */
  compileOwn(...link: readonly string[]): string {
    return compile(join(this.directory, `own${link.join('')}`), ['own.c', 'answers.c'], ...link);
  }

  /** A program without a C library: `bare`, or the 32-bit one, `narrow`. */
  assemble(name: 'bare' | 'narrow'): string {
    const output = join(this.directory, name);
    const [width, emulation] = name === 'narrow' ? ['--32', 'elf_i386'] : ['--64', 'elf_x86_64'];
    execFileSync('as', [width, '-o', `${output}.o`, join(sources, `${name}.s`)]);
    execFileSync('ld', ['-m', emulation, '--build-id', '-o', output, `${output}.o`]);
    return output;
  }

  copyLibrary(name: string): string {
    const copy = join(this.directory, name);
    copyFileSync(this.library, copy);
    return copy;
  }

  async start(condition: string, ...libraries: readonly string[]): Promise<Program> {
    const loaded = libraries.length > 0 ? libraries : [this.library];
    const program = await this.run(this.program, condition, this.directory, ...loaded);
    await program.waitForLine(/^ready/);
    return program;
  }

  async run(file: string, ...parameters: readonly string[]): Promise<Program> {
    const program = await Program.start(file, parameters);
    this.running.push(program);
    return program;
  }

  async endAll(): Promise<void> {
    await Promise.all(this.running.splice(0).map((program) => program.end()));
  }

  async close(): Promise<void> {
    await this.endAll();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export async function ask(
  program: Program,
  question: string,
  answer = new RegExp(`^${question.split(' ')[0] ?? ''} `),
): Promise<string> {
  program.writeLine(question);
  return program.waitForLine(answer);
}

/** That many threads, all of them, wait in read(2). */
export async function untilItReads(pid: number, threads = 1): Promise<void> {
  for (;;) {
    const calls = readdirSync(`/proc/${pid}/task`).map((tid) =>
      readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8'),
    );
    if (calls.length === threads && calls.every((call) => call.startsWith('0 '))) return;
    await sleep(5);
  }
}

export const answers = (library: string, level: number, value: number): PatchToApply =>
  released(handmadePatch(library, level, { answer: returns(value) }));

interface Inside {
  readonly program: Program;
  /** Of the target, where the started program is not it. */
  readonly pid?: number;
  /** The file that the patch was made for, and what the process calls it. */
  readonly library: string;
  readonly path?: string;
}

/** Applies, upgrades and unloads; between these steps the target answers, at the end nothing is left (R7). */
export async function expectPatchable({ program, pid = program.pid, library, path = library }: Inside) {
  expect(await ask(program, 'answer')).toBe('answer 42');
  const before = readMappings(pid);
  for (const [level, value] of [
    [1, 43],
    [2, 44],
  ] as const) {
    const report = await apply(pid, [answers(library, level, value)], patient);
    expect(report).toMatchObject({ result: level === 1 ? 'applied' : 'upgraded', objects: [{ level }] });
    expect(await ask(program, 'answer')).toBe(`answer ${value}`);
  }
  expect(inspect(pid)).toMatchObject([{ state: 'active', level: 2 }]);
  expect(await unload(pid, patient)).toMatchObject({ result: 'unloaded', objects: [] });
  expect(await ask(program, 'answer')).toBe('answer 42');
  expect(countChangedCodeBytes(pid, library, path)).toBe(0);
  expect(readMappings(pid)).toEqual(before);
}

/** `attempt` is refused for this reason and changes nothing. */
export async function expectRefused(
  pid: number,
  attempt: () => ReturnType<typeof apply>,
  code: string,
  message: RegExp,
): Promise<void> {
  const before = readMappings(pid);
  const report = await attempt();
  expect({ result: report.result, code: report.error?.code }).toEqual({ result: 'refused', code });
  expect(report.error?.message).toMatch(message);
  expect(readMappings(pid)).toEqual(before);
}
