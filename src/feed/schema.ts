// The JSON documents of a feed that are ours (the list of patchsets and the index of one): parse and print.
import { z } from 'zod';
import { KcareError } from '../base/errors.js';
import { isPatchsetName } from './names.js';

const patchsetName = z.string().refine(isPatchsetName, 'not a patchset name such as U20261122_01');
const timestamp = z.iso.datetime();
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const cveSchema = z.object({
  id: z.string().max(64),
  description: z.string(),
  score: z.string().max(16),
  url: z.string().max(2048),
});

const entrySchema = z.object({
  buildId: z.string().regex(/^[0-9a-f]{8,128}$/),
  level: z.int().positive(),
  file: z.string().regex(/^patches\/[0-9a-f]{8,128}-\d{1,10}\.kpatch$/),
  sha256,
  size: z.int().nonnegative(),
  objectName: z.string().max(256),
  package: z.string().max(256).default(''),
  packageVersion: z.string().max(256).default(''),
  fixedVersion: z.string().max(256).default(''),
  cves: z.array(cveSchema).max(10_000),
});

const indexSchema = z.object({
  name: patchsetName,
  created: timestamp,
  patches: z.array(entrySchema).max(100_000),
});

const listSchema = z.array(z.object({ name: patchsetName, released: timestamp })).max(100_000);

/** One patch of a patchset, as its index describes it. */
export type PatchEntry = z.infer<typeof entrySchema>;
/** A patchset: all patches that hold at that release, at most one for each build-id. */
export type PatchsetIndex = z.infer<typeof indexSchema>;
/** One release of a feed; `released` is an ISO 8601 time. */
export interface ReleasedPatchset {
  readonly name: string;
  readonly released: string;
}

/** Parses `feed.json`: all patchsets, oldest first. Throws FEED_MALFORMED. */
export function parseFeedList(bytes: Uint8Array): readonly ReleasedPatchset[] {
  const list = parse(bytes, listSchema, 'feed.json');
  if (new Set(list.map(({ name }) => name)).size !== list.length) {
    throw new KcareError('FEED_MALFORMED', 'feed.json names a patchset twice.');
  }
  return list;
}

/** Parses `patchsets/<name>.json`. Throws FEED_MALFORMED, FEED_MISMATCH when it is the index of another patchset. */
export function parsePatchsetIndex(bytes: Uint8Array, name: string): PatchsetIndex {
  const index = parse(bytes, indexSchema, `The index of patchset ${name}`);
  if (index.name !== name) {
    throw new KcareError('FEED_MISMATCH', `The index of patchset ${name} is that of ${index.name}.`);
  }
  if (new Set(index.patches.map(({ buildId }) => buildId)).size !== index.patches.length) {
    throw new KcareError('FEED_MALFORMED', `Patchset ${name} holds two patches for one build-id.`);
  }
  return index;
}

/** The bytes of a document as they are signed and stored. */
export function printDocument(document: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(document, undefined, 2)}\n`);
}

/** Untrusted bytes as a JSON value. Throws FEED_MALFORMED. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
  } catch (cause) {
    throw new KcareError('FEED_MALFORMED', `${what} is not JSON in UTF-8.`, {}, { cause });
  }
}

function parse<T>(bytes: Uint8Array, schema: z.ZodType<T>, what: string): T {
  const result = schema.safeParse(parseJson(bytes, what));
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue === undefined ? '' : `${issue.path.join('.')}: ${issue.message}`;
  throw new KcareError('FEED_MALFORMED', `${what} is malformed (${where}).`);
}
