// The JSON documents of a feed that are ours (the list of patchsets and the index of one): parse and print.
import { KcareError } from '../base/errors.js';
import {
  integer,
  list,
  optional,
  record,
  ShapeError,
  text,
  textThat,
  utcTime,
  type Shape,
  type Shaped,
} from '../base/shapes.js';
import { isPatchsetName } from './names.js';

const patchsetName = textThat(isPatchsetName, 'a patchset name such as U20261122_01');
const matching = (pattern: RegExp): Shape<string> =>
  textThat((value) => pattern.test(value), `of the form ${pattern.source}`);

const cveShape = record({ id: text(64), description: text(), score: text(16), url: text(2048) });

const entryShape = record({
  buildId: matching(/^[0-9a-f]{8,128}$/),
  level: integer(1),
  file: matching(/^patches\/[0-9a-f]{8,128}-\d{1,10}\.(?:kpatch|ko)$/),
  sha256: matching(/^[0-9a-f]{64}$/),
  size: integer(0),
  objectName: text(256),
  package: optional(text(256), ''),
  packageVersion: optional(text(256), ''),
  fixedVersion: optional(text(256), ''),
  cves: list(cveShape, 10_000),
});

const indexShape = record({ name: patchsetName, created: utcTime, patches: list(entryShape, 100_000) });

const listShape = list(record({ name: patchsetName, released: utcTime }), 100_000);

/** One patch of a patchset, as its index describes it. */
export type PatchEntry = Shaped<typeof entryShape>;
/** A patchset: all patches that hold at that release, at most one for each build-id. */
export type PatchsetIndex = Shaped<typeof indexShape>;
/** One release of a feed; `released` is an ISO 8601 time. */
export interface ReleasedPatchset {
  readonly name: string;
  readonly released: string;
}

/** Parses `feed.json`: all patchsets, oldest first. Throws FEED_MALFORMED. */
export function parseFeedList(bytes: Uint8Array): readonly ReleasedPatchset[] {
  const list = parse(bytes, listShape, 'feed.json');
  if (new Set(list.map(({ name }) => name)).size !== list.length) {
    throw new KcareError('FEED_MALFORMED', 'feed.json names a patchset twice.');
  }
  return list;
}

/** Parses `patchsets/<name>.json`. Throws FEED_MALFORMED, FEED_MISMATCH when it is the index of another patchset. */
export function parsePatchsetIndex(bytes: Uint8Array, name: string): PatchsetIndex {
  const index = parse(bytes, indexShape, `The index of patchset ${name}`);
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

function parse<T>(bytes: Uint8Array, shape: Shape<T>, what: string): T {
  const value = parseJson(bytes, what);
  try {
    return shape(value);
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    throw new KcareError('FEED_MALFORMED', `${what} is malformed (${error.message}).`);
  }
}
