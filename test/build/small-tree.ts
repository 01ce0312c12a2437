// A tiny "distribution" for tests: one C file in two versions, the library shipped from the first, and the real pipeline.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';
import { makePatch, type MadePatch } from '../../src/build/make-patch.js';
import { parseRecipe } from '../../src/build/recipe.js';
import { Refusals } from '../../src/build/result.js';
import { ShippedObject } from '../../src/build/shipped-object.js';
import { readPatch, writePatch, type Patch } from '../../src/patchfile/index.js';
import { verifyPatch } from '../../src/review/index.js';

/** Of one test file, removed at its end. */
const trees = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-small-trees-'));
afterAll(() => fs.rmSync(trees, { recursive: true, force: true }));

const flags = ['-O2', '-fPIC', '-fno-plt', '-I.'];

export interface SmallTree {
  readonly before: string;
  readonly after: string;
  readonly functions: readonly string[];
  readonly adds?: readonly string[];
  readonly macros?: readonly string[];
  /** What the fix changes in further files, which are among `others`. */
  readonly also?: readonly { readonly file: string; readonly functions: readonly string[] }[];
  readonly independent?: boolean;
  /** C source of hooks and update functions. */
  readonly update?: string;
  /** Functions of a second fix. */
  readonly second?: readonly string[];
  /** Other versions stand in for those of the recipe. */
  readonly substituted?: boolean;
  /** Further files of the tree, the same in both versions; C files are linked in. */
  readonly others?: Readonly<Record<string, string>>;
  /** Files of the fixed version that differ from `others`. */
  readonly changedOthers?: Readonly<Record<string, string>>;
  readonly extraFlags?: readonly string[];
  /** Flags that the recipe does not know of: the library was built otherwise. */
  readonly unknownFlags?: readonly string[];
  /** Source file that the recipe names, where it is not the unit. */
  readonly file?: string;
  /** Objects and flags of the link, instead of those of a library that binds its own symbols; see `program`. */
  readonly link?: readonly string[];
  /** C file with main: the unit is linked into a program with it. */
  readonly program?: string;
}

export interface SmallResult extends MadePatch {
  readonly codes: readonly string[];
  readonly shipped: ShippedObject;
  readonly directory: string;
  /** The shipped object. */
  readonly file: string;
  /** The object file of the unit, as it was linked. */
  readonly unit: string;
}

/** Compiles and links the old version, then makes a patch from the new version's functions. */
export async function patchSmallTree(tree: SmallTree): Promise<SmallResult> {
  const directory = fs.mkdtempSync(path.join(trees, 'tree-'));
  const [running, fixed] = [path.join(directory, 'running'), path.join(directory, 'fixed')];
  const others = tree.others ?? {};
  writeFiles(running, { ...others, 'unit.c': tree.before });
  writeFiles(fixed, { ...others, ...tree.changedOthers, 'unit.c': tree.after });
  const all = [...flags, ...(tree.extraFlags ?? [])];
  const sources = ['unit.c', ...Object.keys(others).filter((name) => name.endsWith('.c'))];
  const objects = sources.map((source) => {
    const object = source.replace(/\.c$/, '.o');
    execFileSync('gcc', [...all, ...(tree.unknownFlags ?? []), '-c', '-o', object, source], { cwd: running });
    return object;
  });
  const name = tree.program ? 'program' : 'libunit.so';
  const kind = tree.program ? [tree.program] : ['-shared'];
  const link = tree.link ?? (tree.program ? [] : ['-Wl,-Bsymbolic']);
  execFileSync('gcc', [...kind, '-Wl,--build-id=sha1', '-o', name, ...objects, ...link], { cwd: running });
  execFileSync('strip', [name], { cwd: running });
  const file = path.join(running, name);
  const shipped = new ShippedObject(fs.readFileSync(file), name);
  const commands = sources.map((source) => ({
    source,
    object: source.replace(/\.c$/, '.o'),
    compiler: 'gcc',
    flags: all,
  }));
  const refusals = new Refusals();
  const made = await makePatch(
    {
      work: path.join(directory, 'work'),
      tree: { key: directory, tree: running, buildDirectory: running, environment: {}, commands },
      fixedTree: fixed,
      shipped,
      refusals,
    },
    {
      recipe: parseRecipe(smallRecipe(tree.functions, tree)),
      versions: { runs: '1', fixed: '2', substituted: tree.substituted ?? false },
      builder: 'test',
    },
  );
  await expectProved(made.patch, shipped);
  const codes = made.refusals.map(({ code }) => code);
  return { ...made, codes, shipped, directory, file, unit: path.join(running, 'unit.o') };
}

/** Whatever is built, the shipped object alone proves it; with the bytes that a file of it would have. */
async function expectProved(patch: Patch | undefined, shipped: ShippedObject): Promise<void> {
  if (!patch) return;
  const { verdict, findings } = await verifyPatch(readPatch(writePatch(patch)), { shipped, debug: [] });
  if (verdict === 'proved') return;
  const reasons = findings.filter(({ state }) => state === 'refuted');
  throw new Error(reasons.map(({ about, subject, reason }) => `${about} ${subject}: ${reason}`).join('\n'));
}

function writeFiles(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    fs.writeFileSync(path.join(directory, name), text);
  }
}

export function smallRecipe(
  functions: readonly string[],
  {
    adds = [],
    macros = [],
    also = [],
    independent = false,
    file = 'unit.c',
    update,
    second,
  }: Partial<SmallTree> = {},
): string {
  const more = second ? [{ id: 'CVE-2026-2', description: 'test', file: 'unit.c', functions: second }] : [];
  return JSON.stringify({
    name: 'unit',
    description: 'test',
    level: 1,
    date: '2026-01-01T00:00:00Z',
    package: { source: 'unit', binary: 'libunit', object: 'usr/lib/libunit.so' },
    runs: '1',
    fixed: '2',
    build: { directory: 'build', configure: ['true'], commands: 'make -n' },
    cves: [
      { id: 'CVE-2026-1', description: 'test', file, functions, adds, macros, also, independent, update },
      ...more,
    ],
  });
}
