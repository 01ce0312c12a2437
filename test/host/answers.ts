// Targets that run libanswers.so of fixtures/engine, and patches for it, for tests of whole hosts.
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Program } from '../../fixtures/support/program.js';
import { untilThreadWaits } from '../../fixtures/support/threads.js';
import { writePatch, type Patch } from '../../src/patchfile/index.js';
import { compileTarget, handmadePatch, returns, type Compiled } from '../../fixtures/support/handmade.js';

export class AnswersWorld {
  readonly directory = mkdtempSync(join(tmpdir(), 'kcare-answers-'));
  readonly compiled: Compiled = compileTarget(join(this.directory, 'target'));
  private readonly running: Program[] = [];

  /** Starts the target, under another name when `name` is given. */
  async start(name?: string): Promise<Program> {
    let file = this.compiled.program;
    if (name !== undefined) {
      file = join(this.directory, name);
      copyFileSync(this.compiled.program, file);
    }
    const program = await Program.start(file);
    this.running.push(program);
    await program.waitForLine(/^ready/);
    return program;
  }

  /** A target in which a thread stays inside wait_inside(), which {@link blocker} replaces, until it is told "open". */
  async startBlocked(): Promise<Program> {
    const program = await this.start();
    program.writeLine('block');
    await untilThreadWaits(program.pid);
    return program;
  }

  /** answer() returns `value` from now on. */
  patch(level: number, value: number): Patch {
    return handmadePatch(this.compiled.library, level, { answer: returns(value) });
  }

  /** Replaces the function in which a thread of {@link startBlocked} stays. */
  blocker(level: number): Patch {
    return handmadePatch(this.compiled.library, level, { wait_inside: returns(7) });
  }

  writePatchFile(patch: Patch, name: string): string {
    const path = join(this.directory, `${name}.kpatch`);
    writeFileSync(path, writePatch(patch));
    return path;
  }

  async answer(program: Program): Promise<string> {
    program.writeLine('answer');
    return await program.waitForLine(/^answer /);
  }

  /** Ends all programs; the inverse of {@link start}. */
  async end(): Promise<void> {
    await Promise.all(this.running.splice(0).map((program) => program.end()));
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
