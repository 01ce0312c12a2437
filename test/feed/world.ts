// A publisher, its feed and a client in a temporary directory, for tests of the feed.
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import {
  type FeedState,
  type PublishOptions,
  type PublishResult,
  type UpdateOptions,
  cachedFeed,
  importKey,
  publish,
  updateFeed,
} from '../../src/feed/index.js';
import { openPublisherKeys } from '../../src/feed/publisher-keys.js';
import { type Repository, openRepository } from '../../src/feed/repository.js';
import { writePatch } from '../../src/patchfile/index.js';
import { samplePatch } from '../patchfile/sample.js';

export const buildIdA = 'aa'.repeat(20);
export const buildIdB = 'bb'.repeat(20);

export class World {
  readonly directory = mkdtempSync(join(tmpdir(), 'kcare-feed-'));
  readonly feed = join(this.directory, 'feed');
  readonly keys = join(this.directory, 'keys');
  readonly trusted = join(this.directory, 'trusted');
  readonly cache = join(this.directory, 'cache');
  readonly publicKey = join(this.feed, 'kcare-feed.asc');

  constructor() {
    onTestFinished((context) => {
      if (context.task.result?.state === 'fail') console.error(`kept: ${this.directory}`);
      else rmSync(this.directory, { recursive: true, force: true });
    });
  }

  /** Writes a patch file; equal arguments give equal bytes. */
  patch(buildId: string, level: number, description = 'A patch for tests'): string {
    const sample = samplePatch();
    const patch = samplePatch({ buildId, metadata: { ...sample.metadata, level, description } });
    const path = join(this.directory, `${buildId.slice(0, 4)}-${level}-${description.length}.kpatch`);
    writeFileSync(path, writePatch(patch));
    return path;
  }

  async publish(options: Partial<PublishOptions> = {}): Promise<PublishResult> {
    return await publish({
      feedDirectory: this.feed,
      keyDirectory: this.keys,
      files: [],
      createKeys: true,
      ...options,
    });
  }

  /** A feed with one patchset (level 1 for both build-ids) whose key the client trusts. */
  async start(options: Partial<PublishOptions> = {}): Promise<PublishResult> {
    const result = await this.publish({
      files: [this.patch(buildIdA, 1), this.patch(buildIdB, 1)],
      ...options,
    });
    await importKey(this.trusted, this.publicKey);
    return result;
  }

  async update(options: Partial<UpdateOptions> = {}): Promise<FeedState> {
    return await updateFeed({
      server: this.feed,
      cacheDirectory: this.cache,
      keyDirectory: this.trusted,
      retries: 0,
      timeoutMs: 20_000,
      ...options,
    });
  }

  async cached(server: string = this.feed, allowExpired = false): Promise<FeedState> {
    return await cachedFeed({
      server,
      cacheDirectory: this.cache,
      keyDirectory: this.trusted,
      allowExpired,
    });
  }

  metadata(name: string): string {
    return join(this.feed, 'main', 'metadata', name);
  }

  /** The stored file of a target, such as `patches/aa…-1.kpatch`; the newest one if there are several. */
  target(path: string): string {
    const targets = this.targetsMetadata();
    const sha256 = targets[path]?.hashes.sha256 ?? 'none';
    const slash = path.lastIndexOf('/') + 1;
    return join(this.feed, 'main', 'targets', path.slice(0, slash), `${sha256}.${path.slice(slash)}`);
  }

  targetsMetadata(): Record<string, { hashes: { sha256: string }; length: number }> {
    const newest = Math.max(
      ...readdirSync(this.metadata(''))
        .flatMap((name) => /^(\d+)\.targets\.json$/.exec(name)?.[1] ?? [])
        .map(Number),
    );
    const parsed = JSON.parse(readFileSync(this.metadata(`${newest}.targets.json`), 'utf8')) as {
      signed: { targets: Record<string, { hashes: { sha256: string }; length: number }> };
    };
    return parsed.signed.targets;
  }

  /** The publisher's view of the feed, with role keys from `roleKeys`, for making what a thief of keys could make. */
  async repository(roleKeys = join(this.keys, 'main')): Promise<Repository> {
    const { openpgp } = await openPublisherKeys(this.keys, 'main');
    const opened = await openRepository(join(this.feed, 'main'), roleKeys, 'main', openpgp.toPublic());
    if (opened === undefined) throw new Error('There is no feed.');
    return opened;
  }

  /** A directory of its own inside of this world. */
  sub(name: string): string {
    const path = join(this.directory, name);
    mkdirSync(path, { recursive: true, mode: 0o755 });
    return path;
  }
}

/** The code of the KcareError that `action` throws; anything else thrown fails the test. */
export async function refusal(action: Promise<unknown>): Promise<string> {
  try {
    await action;
  } catch (error) {
    if (error instanceof KcareError) return error.code;
    throw error;
  }
  return 'accepted';
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A web server on loopback that is no part of the project; gone at the end of the test. */
export async function loopback(handler: Handler, configure?: (server: Server) => void): Promise<string> {
  const server = createServer(handler);
  configure?.(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

/** Serves `directory` plainly; `overrides` answer for paths that end with their key. */
export async function badServer(directory: string, overrides: Record<string, Handler>): Promise<string> {
  return await loopback((request, response) => {
    const path = request.url ?? '/';
    const override = Object.entries(overrides).find(([end]) => path.endsWith(end))?.[1];
    if (override !== undefined) {
      override(request, response);
      return;
    }
    try {
      response.end(readFileSync(join(directory, path)));
    } catch {
      response.statusCode = 404;
      response.end();
    }
  });
}
