// The engine as others import it: the example of docs/library.md is run as it stands there.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Program } from '../../fixtures/support/program.js';
import { writePatch } from '../../src/patchfile/index.js';
import { compileTarget, handmadePatch, returns } from '../../fixtures/support/handmade.js';

const root = join(import.meta.dirname, '../..');

it('patches, shows and unloads a process as the example in docs/library.md says', async () => {
  // Inside the package, so that its own name can be imported.
  const directory = mkdtempSync(join(root, 'build', 'library-'));
  const compiled = compileTarget(directory);
  const program = await Program.start(compiled.program, ['1']);
  try {
    await program.waitForLine(/^ready/);
    const example = /```js\n([^]*?)```/.exec(readFileSync(join(root, 'docs/library.md'), 'utf8'))?.[1] ?? '';
    writeFileSync(join(directory, 'example.mjs'), example);
    writeFileSync(
      join(directory, 'patch'),
      writePatch(handmadePatch(compiled.library, 7, { answer: returns(43) })),
    );
    const parameters = [join(directory, 'example.mjs'), String(program.pid), join(directory, 'patch')];
    const output = execFileSync(process.execPath, parameters, { encoding: 'utf8' });
    expect(output.split('\n')).toEqual(['applied ', 'libanswers.so 7 active', 'unloaded', '']);
  } finally {
    await program.end();
    rmSync(directory, { recursive: true, force: true });
  }
});
