// Starts fixtures/proc/mapper.c as a target, from whatever path a test wants.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach } from 'vitest';
import { Program } from '../../fixtures/support/program.js';

export class MapperWorld {
  readonly directory = mkdtempSync(join(tmpdir(), 'kcare-proc-'));
  readonly mapper = join(this.directory, 'mapper');
  private readonly running: Program[] = [];

  constructor() {
    const source = join(import.meta.dirname, '../../fixtures/proc/mapper.c');
    execFileSync('cc', [
      '-std=c11',
      '-D_GNU_SOURCE',
      '-O1',
      '-Wall',
      '-Wextra',
      '-Werror',
      '-Wl,--build-id',
      '-o',
      this.mapper,
      source,
    ]);
    afterEach(() => this.endAll());
    afterAll(() => rmSync(this.directory, { recursive: true, force: true }));
  }

  /** A copy of the program under another name in the directory. */
  copy(name: string): string {
    const path = join(this.directory, name);
    copyFileSync(this.mapper, path);
    return path;
  }

  async start(parameters: readonly string[] = [], file = this.mapper): Promise<Program> {
    const program = await Program.start(file, parameters);
    this.running.push(program);
    await program.waitForLine(/^ready$/);
    return program;
  }

  private async endAll(): Promise<void> {
    await Promise.all(this.running.splice(0).map((program) => program.end()));
  }
}
