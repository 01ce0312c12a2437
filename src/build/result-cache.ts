// Remembers finished builds by all their inputs, so that a repeat is immediate.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { RefusalCode } from './refusal-table.js';
import type { Refusal } from './result.js';
import { packageRoot } from '../base/package-root.js';

export interface KeptResult {
  readonly outcome: 'built' | 'refused' | 'unchanged';
  readonly refusals: readonly Refusal[];
  readonly versions: { readonly runs: string; readonly fixed: string; readonly substituted: boolean };
  readonly patch: Uint8Array | undefined;
}

const schema = z.object({
  outcome: z.enum(['built', 'refused', 'unchanged']),
  refusals: z.array(z.object({ code: z.string(), message: z.string(), function: z.string().optional() })),
  versions: z.object({ runs: z.string(), fixed: z.string(), substituted: z.boolean() }),
  patch: z.string().optional(),
});

/** A name for "kcare VERSION" that is the same wherever it is installed. */
export function builderName(): string {
  const text = readFileSync(path.join(packageRoot(), 'package.json'), 'utf8');
  return `kcare ${z.object({ version: z.string() }).parse(JSON.parse(text)).version}`;
}

/** Changes with every change of the code that makes patches, so that no old result outlives it. */
function toolIdentity(): string {
  const hash = createHash('sha256');
  for (const layer of ['base', 'elf', 'patchfile', 'build']) {
    const directory = path.join(import.meta.dirname, '..', layer);
    for (const file of readdirSync(directory).sort()) {
      if (/\.(?:js|ts)$/.test(file)) hash.update(file).update(readFileSync(path.join(directory, file)));
    }
  }
  return hash.digest('hex');
}

export class ResultCache {
  private readonly base: string;

  constructor(work: string, recipeText: string, cves: readonly string[]) {
    const key = createHash('sha256')
      .update(JSON.stringify([recipeText, [...cves].sort(), builderName(), toolIdentity()]))
      .digest('hex');
    this.base = path.join(work, 'results', key);
  }

  async read(): Promise<KeptResult | undefined> {
    const file = `${this.base}.json`;
    if (!existsSync(file)) return undefined;
    const kept = schema.parse(JSON.parse(await readFile(file, 'utf8')));
    return {
      outcome: kept.outcome,
      versions: kept.versions,
      // Written by this class from refusals; the codes are those of this very version of the tool.
      refusals: kept.refusals.map(
        (refusal) => ({ ...refusal, code: refusal.code as RefusalCode }) as Refusal,
      ),
      patch: kept.patch === undefined ? undefined : Buffer.from(kept.patch, 'base64'),
    };
  }

  async write({ patch, ...facts }: KeptResult): Promise<void> {
    const record = { ...facts, ...(patch && { patch: Buffer.from(patch).toString('base64') }) };
    await writeWhole(`${this.base}.json`, Buffer.from(JSON.stringify(record)));
  }
}

/** Writes a file beside its place and renames it: readers see all of it or nothing. */
export async function writeWhole(file: string, bytes: Uint8Array): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const temporary = `${file}.part-${process.pid}`;
  await writeFile(temporary, bytes);
  await rename(temporary, file);
}
