// Functions that a recipe declares independent: threads already inside the old code may finish in it.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { jumpOffset, jumpSize, type Hunk, type Patch } from '../patchfile/index.js';
import type { Recipe } from './recipe.js';
import type { Refusals } from './result.js';
import { run } from './run.js';

/** Names that every fix which replaces them declares independent. */
export function independentFunctions({ cves }: Recipe): Set<string> {
  const edits = cves.flatMap((fix) => [fix, ...fix.also]);
  const declared = edits.filter(({ independent }) => independent).flatMap(({ functions }) => functions);
  const others = edits.filter(({ independent }) => !independent).flatMap(({ functions }) => functions);
  return new Set(declared.filter((name) => !others.includes(name)));
}

/**
 * The patch with the hunks of `names`, compiler-made copies included, marked as independent and without the guards of
 * their unlikely parts. Functions that come back to the bytes which the jump overwrites go to `refusals`.
 */
export async function markIndependent(
  patch: Patch,
  names: ReadonlySet<string>,
  refusals: Refusals,
): Promise<Patch> {
  if (names.size === 0) return patch;
  const isConcerned = ({ name }: Hunk): boolean => names.has(name.replace(/\..*$/, ''));
  const hunks = patch.hunks
    .filter((hunk) => hunk.kind === 'replace' || !isConcerned(hunk))
    .map((hunk) => (isConcerned(hunk) ? { ...hunk, independent: true } : hunk));
  for (const hunk of hunks) {
    const problem = isConcerned(hunk) ? await wayBack(hunk) : undefined;
    if (problem) refusals.add('NOT_INDEPENDENT', `${hunk.name} ${problem}`, hunk.name);
  }
  return { ...patch, hunks };
}

/** How a thread in the body could get to the overwritten bytes; undefined when it cannot. */
async function wayBack(hunk: Hunk): Promise<string | undefined> {
  const first = jumpOffset(hunk);
  for (const line of await disassemble(hunk.original)) {
    if (/\s(?:bnd |notrack )*jmp\s+\*/.test(line) && !/\bjmp\s+\*0x[0-9a-f]+\(%rip\)/.test(line)) {
      return 'jumps through a table or pointer, so that a way back to its start cannot be excluded';
    }
    const target = /\s(?:j\w+|loop\w*|xbegin)(?:,p[nt])?\s+0x([0-9a-f]+)/.exec(line)?.[1];
    const offset = target === undefined ? undefined : parseInt(target, 16);
    if (offset !== undefined && offset >= 0 && offset < first + jumpSize) {
      return 'jumps back to its start, where the jump to the new code will be';
    }
  }
  return undefined;
}

/** One line for each instruction; targets of branches are offsets in the code. */
async function disassemble(code: Uint8Array): Promise<string[]> {
  const directory = await mkdtemp(path.join(tmpdir(), 'kcare-code-'));
  try {
    const file = path.join(directory, 'code');
    await writeFile(file, code);
    const options = ['-D', '-w', '-b', 'binary', '-m', 'i386:x86-64', '--no-show-raw-insn'];
    return (await run('objdump', [...options, file]))
      .split('\n')
      .filter((line) => /^\s*[0-9a-f]+:/.test(line));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
