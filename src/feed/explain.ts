// Why a refresh was refused, as an error of our table, also where the updater hides the class of the cause.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PersistError, RuntimeError } from 'tuf-js/dist/error.js';
import { KcareError, asKcareError } from '../base/errors.js';
import { asFeedError } from './failures.js';
import { type FeedFetcher, withoutPassword } from './fetcher.js';
import { writeAtomically } from '../base/safe-files.js';
import { readMetadata, verifyMetadata, verifySnapshot } from './verify.js';

/** The error to throw for what `Updater.refresh` threw. `staging` is its metadata directory. */
export async function explainRefresh(
  thrown: unknown,
  fetcher: FeedFetcher,
  staging: string,
  metadataUrl: string,
): Promise<KcareError> {
  const what = withoutPassword(metadataUrl);
  if (thrown instanceof PersistError) return await explainPersist(thrown, staging);
  if (!(thrown instanceof RuntimeError)) return asFeedError(thrown, what);
  if (fetcher.failure !== undefined) return asFeedError(fetcher.failure, what);
  // The updater turns every failure of snapshot and targets into one class, with the cause only in words:
  // verify the same bytes again, step by step, to know which promise was broken.
  try {
    await verifyFetched(fetcher, staging, metadataUrl);
  } catch (cause) {
    return asFeedError(cause, what);
  }
  // All fits together, so it is the comparison with the earlier snapshot that failed.
  return new KcareError('FEED_ROLLBACK', `${what}: ${thrown.message}.`, {}, { cause: thrown });
}

async function verifyFetched(fetcher: FeedFetcher, staging: string, metadataUrl: string): Promise<void> {
  const stored = async (name: string): Promise<Buffer> =>
    existsSync(join(staging, name)) ? await readFile(join(staging, name)) : Buffer.alloc(0);
  const fetched = (name: string): Buffer | undefined => fetcher.fetched.get(`${metadataUrl}/${name}`);
  const root = readMetadata('root', await stored('root.json'));
  const timestamp = await stored('timestamp.json');
  const { version } = readMetadata('timestamp', timestamp).signed.snapshotMeta;
  const snapshot = fetched(`${version}.snapshot.json`) ?? (await stored('snapshot.json'));
  const { snapshot: verified } = verifySnapshot(root, { timestamp, snapshot }, false);
  const targets = fetched(`${verified.signed.meta['targets.json']?.version ?? 0}.targets.json`);
  // Without fetched targets the updater never came to them.
  if (targets !== undefined) verifyMetadata(root, { timestamp, snapshot, targets }, false);
}

/** The updater keeps only the words of a failed write: write again to learn the system's error. */
async function explainPersist(thrown: PersistError, staging: string): Promise<KcareError> {
  try {
    await writeAtomically(join(staging, 'probe'), Buffer.alloc(65_536));
  } catch (cause) {
    return asKcareError(cause);
  }
  const code = thrown.message.includes('ENOSPC') ? 'NO_SPACE' : 'INTERNAL';
  return new KcareError(code, thrown.message, {}, { cause: thrown });
}
