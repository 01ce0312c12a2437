// What was verified, and until when that counts: lets an update of an unchanged feed do without verifying it again.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { KcareError } from '../base/errors.js';
import { readSafeFile, writeAtomically } from '../base/safe-files.js';
import { integer, list, record, ShapeError, text, textThat, type Shaped } from '../base/shapes.js';
import { parseJson } from './schema.js';
import type { RootChain, StoredMetadata } from './verify.js';

/**
 * R4: a verdict is about bytes, not about files: whatever it rested on (the imported keys, all roots, the metadata, an
 * index and its signature) has to hash to the same values. It is kept beside the metadata, under the same rules as the
 * imported keys (R10): who could write a verdict could as well import a key.
 */
const hash = textThat((value) => /^[0-9a-f]{64}$/.test(value), 'a SHA-256');
const shape = record({
  version: integer(1, 1),
  /** Milliseconds since 1970. When the clock stands outside of the two, everything is verified anew. */
  from: integer(0),
  until: integer(0),
  /** When the metadata expires. */
  expires: integer(0),
  /** Of keys, roots and metadata: {@link digestOf}. */
  digest: hash,
  /** The patchset indexes whose OpenPGP signature held. */
  indexes: list(record({ index: hash, signature: hash, signedBy: text(64) }), 16),
});

export type Verdict = Shaped<typeof shape>;

/** However long everything stays valid: a defect found in what verifies must not live on in what it said. */
export const longestVerdictMs = 24 * 3_600_000;

const file = 'verdict.json';
const longestFile = 65_536;

export interface KeyFile {
  readonly name: string;
  readonly bytes: Buffer;
}

/** Names everything on which the verification of a feed rests, apart from the clock. */
export function digestOf(
  prefix: string,
  keys: readonly KeyFile[],
  chain: RootChain,
  stored: StoredMetadata,
): string {
  const digest = createHash('sha256');
  const add = (name: string, bytes: Uint8Array): void => {
    digest.update(JSON.stringify([name, bytes.length])).update(bytes);
  };
  add('prefix', Buffer.from(prefix));
  for (const { name, bytes } of keys) add(`key ${name}`, bytes);
  add('signature', chain.signature);
  for (const bytes of chain.roots) add('root', bytes);
  add('timestamp', stored.timestamp);
  add('snapshot', stored.snapshot);
  add('targets', stored.targets);
  return digest.digest('hex');
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Undefined when there is none, or none that counts now. Throws UNSAFE_MODE (R10). */
export async function readVerdict(generation: string, now: number): Promise<Verdict | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readSafeFile(join(generation, file));
  } catch (error) {
    if (error instanceof KcareError && error.code === 'UNSAFE_MODE') throw error;
    return undefined;
  }
  try {
    if (bytes.length > longestFile) return undefined;
    const verdict = shape(parseJson(bytes, file));
    const isLimited = verdict.until - verdict.from <= longestVerdictMs;
    return isLimited && verdict.from <= now && now < verdict.until ? verdict : undefined;
  } catch (error) {
    if (error instanceof ShapeError || error instanceof KcareError) return undefined;
    throw error;
  }
}

export async function writeVerdict(generation: string, verdict: Verdict): Promise<void> {
  await writeAtomically(join(generation, file), Buffer.from(`${JSON.stringify(verdict)}\n`));
}
