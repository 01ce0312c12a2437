// A tiny "distribution" for tests: one C file in two versions, the library shipped from the first, and the real pipeline.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { makePatch, type MadePatch } from '../../src/build/make-patch.js';
import { parseRecipe } from '../../src/build/recipe.js';
import { Refusals } from '../../src/build/result.js';
import { ShippedObject } from '../../src/build/shipped-object.js';

const flags = ['-O2', '-fPIC', '-fno-plt', '-I.'];

export interface SmallTree {
  readonly before: string;
  readonly after: string;
  readonly functions: readonly string[];
  readonly adds?: readonly string[];
  /** Further files of the tree, the same in both versions; C files are linked in. */
  readonly others?: Readonly<Record<string, string>>;
  /** Files of the fixed version that differ from `others`. */
  readonly changedOthers?: Readonly<Record<string, string>>;
  readonly extraFlags?: readonly string[];
}

export interface SmallResult extends MadePatch {
  readonly codes: readonly string[];
  readonly shipped: ShippedObject;
  readonly directory: string;
}

/** Compiles and links the old version, then makes a patch from the new version's functions. */
export async function patchSmallTree(tree: SmallTree): Promise<SmallResult> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-build-'));
  const [running, fixed] = [path.join(directory, 'running'), path.join(directory, 'fixed')];
  const others = tree.others ?? {};
  writeFiles(running, { ...others, 'unit.c': tree.before });
  writeFiles(fixed, { ...others, ...tree.changedOthers, 'unit.c': tree.after });
  const all = [...flags, ...(tree.extraFlags ?? [])];
  const sources = ['unit.c', ...Object.keys(others).filter((name) => name.endsWith('.c'))];
  const objects = sources.map((source) => {
    const object = source.replace(/\.c$/, '.o');
    execFileSync('gcc', [...all, '-c', '-o', object, source], { cwd: running });
    return object;
  });
  execFileSync('gcc', ['-shared', '-Wl,--build-id=sha1,-Bsymbolic', '-o', 'libunit.so', ...objects], {
    cwd: running,
  });
  execFileSync('strip', ['libunit.so'], { cwd: running });
  const shipped = new ShippedObject(fs.readFileSync(path.join(running, 'libunit.so')), 'libunit.so');
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
      recipe: parseRecipe(smallRecipe(tree.functions, tree.adds ?? [])),
      versions: { runs: '1', fixed: '2' },
      builder: 'test',
    },
  );
  return { ...made, codes: made.refusals.map(({ code }) => code), shipped, directory };
}

function writeFiles(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    fs.writeFileSync(path.join(directory, name), text);
  }
}

export function smallRecipe(functions: readonly string[], adds: readonly string[] = []): string {
  return JSON.stringify({
    name: 'unit',
    description: 'test',
    level: 1,
    date: '2026-01-01T00:00:00Z',
    package: { source: 'unit', binary: 'libunit', object: 'usr/lib/libunit.so' },
    runs: '1',
    fixed: '2',
    build: { directory: 'build', configure: ['true'], commands: 'make -n' },
    cves: [{ id: 'CVE-2026-1', description: 'test', file: 'unit.c', functions, adds }],
  });
}
