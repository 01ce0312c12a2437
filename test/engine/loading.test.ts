// The loader at work on the library that is to be patched: until it is done, the process waits for its patch.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Program } from '../../fixtures/support/program.js';
import { apply, unload } from '../../src/engine/index.js';
import { answers, now, Workshop } from './conditions.js';

const relocations = {
  'with protected slots': [],
  'with slots that stay writable': ['-Wl,-z,norelro'],
  'bound at once': ['-Wl,-z,now'],
  'bound at once, with slots that stay writable': ['-Wl,-z,now,-z,norelro'],
} as const;

describe('a library that the loader is still relocating', () => {
  let workshop: Workshop;
  let waitFile: string;

  beforeAll(() => {
    workshop = new Workshop();
    waitFile = join(workshop.directory, 'wait');
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  function compileSlow(name: string, link: readonly string[]): string {
    const soname = `-Wl,--build-id,-soname,${name}`;
    const waits = `-DWAIT_WHILE="${waitFile}"`;
    return workshop.compileInto(name, ['slow_library.c'], '-fPIC', '-shared', soname, waits, ...link);
  }

  /** In the choice of a function, which the loader asks for in the midst of its work. */
  async function untilItChooses({ pid }: Program, library: string): Promise<void> {
    for (;;) {
      const isMapped = readFileSync(`/proc/${pid}/maps`, 'latin1').includes(library);
      const nanosleep = '35 ';
      if (isMapped && readFileSync(`/proc/${pid}/syscall`, 'latin1').startsWith(nanosleep)) return;
      await sleep(1);
    }
  }

  async function expectToWait(program: Program, library: string): Promise<void> {
    await untilItChooses(program, library);
    const patch = answers(library, 1, 43);
    const waiting = await apply(program.pid, [patch], now);
    expect(waiting).toMatchObject({ result: 'busy', objects: [], error: { code: 'TARGET_BUSY' } });
    expect(waiting.error?.message).toContain('is still loading');
    rmSync(waitFile);
    let report = waiting;
    while (report.result === 'busy') report = await apply(program.pid, [patch], now);
    expect(report).toMatchObject({ result: 'applied', objects: [{ level: 1 }] });
    expect(await program.waitForLine(/^answer /)).toMatch(/^answer 43 /);
    expect(await unload(program.pid, { waitMs: 5000, dryRun: false })).toMatchObject({ result: 'unloaded' });
  }

  it.each(Object.entries(relocations))(
    '%s, at the start of the program, is patched when it is done',
    async (name, link) => {
      const library = compileSlow(`libstart${Object.keys(relocations).indexOf(name)}.so`, link);
      writeFileSync(waitFile, '');
      // The linker asks nobody: it is the loader of the program that waits.
      const program = workshop.compileOf(
        ['newcomer.c'],
        '-Wl,--no-as-needed',
        library,
        `-Wl,-rpath,${dirname(library)}`,
      );
      await expectToWait(await workshop.run(program, '60000', 'stay'), library);
    },
  );

  it.each(Object.entries(relocations))('%s, by dlopen, is patched when it is done', async (name, link) => {
    const library = compileSlow(`liblate${Object.keys(relocations).indexOf(name)}.so`, link);
    writeFileSync(waitFile, '');
    const program = workshop.compileOf(['newcomer.c'], '-DLATE');
    await expectToWait(await workshop.run(program, '60000', 'stay', '1', library), library);
  });
});
