// A host follows a feed: over HTTP, from a directory, offline, and with patchsets chosen by policy.
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { startServer } from '../../src/server/index.js';
import { World, badServer, buildIdA, buildIdB, refusal } from './world.js';

const day = 86_400_000;

describe('a host that follows a feed', () => {
  it.each(['http', 'file URL', 'path'])('gets the newest patchset and its patches (%s)', async (kind) => {
    const world = new World();
    const { patchset } = await world.start();
    const http = kind === 'http' ? await startServer({ feedDirectory: world.feed, port: 0 }) : undefined;
    const server = http?.url ?? (kind === 'path' ? world.feed : pathToFileURL(world.feed).href);
    const state = await world.update({ server });
    expect(state.patchset).toBe(patchset);
    expect(state.patches.map(({ buildId, level }) => [buildId, level])).toEqual([
      [buildIdA, 1],
      [buildIdB, 1],
    ]);
    expect(state.patches[0]?.cves[0]?.id).toBe('CVE-2026-0001');
    const patch = await state.patchFor(buildIdA);
    expect(Buffer.from(patch?.bytes ?? [])).toEqual(readFileSync(world.patch(buildIdA, 1)));
    expect(patch).toMatchObject({ level: 1, patchset, buildId: buildIdA });
    expect(await state.patchFor('cc'.repeat(20))).toBeUndefined();
    await http?.close();

    const offline = await world.cached(server);
    expect(offline.patchset).toBe(patchset);
    expect(Buffer.from((await offline.patchFor(buildIdA))?.bytes ?? [])).toEqual(
      Buffer.from(patch?.bytes ?? []),
    );
    expect(await refusal(offline.patchFor(buildIdB))).toBe('FEED_NOT_CACHED');
  });

  it('keeps earlier patches in later patchsets and takes higher levels', async () => {
    const world = new World();
    await world.start();
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    const state = await world.update();
    expect(state.patches.map(({ buildId, level }) => [buildId, level])).toEqual([
      [buildIdA, 2],
      [buildIdB, 1],
    ]);
  });

  it('downloads again only what changed', async () => {
    const world = new World();
    await world.start();
    const asked: string[] = [];
    const server = await badServer(world.feed, {
      '': (request, response) => {
        asked.push((request.url ?? '').replace('/main/', ''));
        try {
          response.end(readFileSync(join(world.feed, request.url ?? '')));
        } catch {
          response.writeHead(404).end();
        }
      },
    });
    await (await world.update({ server })).patchFor(buildIdA);
    asked.length = 0;
    await (await world.update({ server })).patchFor(buildIdA);
    expect(asked).toEqual(['metadata/2.root.json', 'metadata/timestamp.json']);
  });

  it('can stay on an earlier patchset, and is told when there is no such patchset', async () => {
    const world = new World();
    const first = await world.start({ now: new Date(Date.now() - day) });
    const second = await world.publish({ files: [world.patch(buildIdA, 2)] });
    const state = await world.update({ select: (all) => all[0]?.name });
    expect(state.patchset).toBe(first.patchset);
    expect((await state.patchFor(buildIdA))?.level).toBe(1);
    expect(state.patchsets.map(({ name }) => name)).toEqual([first.patchset, second.patchset]);
    expect((await world.update({ select: () => undefined })).patchset).toBeUndefined();
    expect(await refusal(world.update({ select: () => 'U19990101_01' }))).toBe('PATCHSET_UNKNOWN');
  });

  it('chooses offline only among the patchsets that it has', async () => {
    const world = new World();
    const first = await world.start({ now: new Date(Date.now() - day) });
    const second = await world.publish({ files: [world.patch(buildIdA, 2)] });
    expect(await refusal(world.update({ select: () => undefined }))).toBe('accepted');
    expect(await refusal(world.cached())).toBe('FEED_NOT_CACHED');
    await world.update({ select: (all) => all[0]?.name });
    expect((await world.cached()).patchset).toBe(first.patchset);
    await world.update();
    expect((await world.cached()).patchset).toBe(second.patchset);
  });

  it('accepts a feed without patchsets', async () => {
    const world = new World();
    await world.publish();
    await world.start({ files: [] });
    const state = await world.update();
    expect(state).toMatchObject({ patchset: undefined, patches: [], patchsets: [] });
    expect(await state.patchFor(buildIdA)).toBeUndefined();
  });

  it('follows the feed that PREFIX names, each with keys of its own', async () => {
    const world = new World();
    await world.start();
    await world.publish({ prefix: 'test', files: [world.patch(buildIdA, 7)] });
    expect((await world.update({ prefix: 'test' })).patches[0]?.level).toBe(7);
    expect((await world.update({ prefix: '' })).patches[0]?.level).toBe(1);
    expect(await refusal(world.update({ prefix: '../main' }))).toBe('USAGE');
    expect(await refusal(world.update({ prefix: '12h' }))).toBe('FEED_UNREACHABLE');
  });

  it('says what is missing when nothing was cached', async () => {
    const world = new World();
    await world.start();
    expect(await refusal(world.cached())).toBe('FEED_NOT_CACHED');
    expect(await refusal(world.update({ server: 'http://127.0.0.1:1/' }))).toBe('FEED_UNREACHABLE');
    expect(await refusal(world.update({ server: 'ftp://example.org/' }))).toBe('USAGE');
    expect(await refusal(world.update({ server: join(world.directory, 'nothing') }))).toBe(
      'FEED_UNREACHABLE',
    );
  });

  it('uses expired cached metadata only to show it', async () => {
    const world = new World();
    const now = new Date(Date.now() - 6.99 * day);
    const { patchset } = await world.start({ now, lifetimes: { timestamp: 6.99 + 8 / 86_400 } });
    await (await world.update()).patchFor(buildIdA);
    await expect
      .poll(async () => await refusal(world.cached()), { timeout: 60_000, interval: 500 })
      .toBe('FEED_EXPIRED');
    expect((await world.cached(world.feed, true)).patchset).toBe(patchset);
  });

  it('refuses a cache or key directory that others can write (R10)', async () => {
    const world = new World();
    await world.start();
    await world.update();
    for (const directory of [world.cache, world.trusted]) {
      chmodSync(directory, 0o777);
      expect(await refusal(world.update())).toBe('UNSAFE_MODE');
      expect(await refusal(world.cached())).toBe('UNSAFE_MODE');
      chmodSync(directory, 0o755);
    }
    expect(await refusal(world.cached())).toBe('accepted');
    const open = world.sub('open');
    chmodSync(open, 0o777);
    expect(await refusal(world.update({ cacheDirectory: join(open, 'cache') }))).toBe('UNSAFE_MODE');
  });

  it('starts again, as on the first day, from a cache whose roots are damaged', async () => {
    const world = new World();
    const { patchset } = await world.start();
    await world.update();
    const [root] = execFileSync('find', [world.cache, '-name', '1.root.json'], { encoding: 'utf8' }).split(
      '\n',
    );
    writeFileSync(root ?? '', 'damaged');
    expect(await refusal(world.cached())).toBe('FEED_UNTRUSTED');
    expect((await world.update()).patchset).toBe(patchset);
    expect((await world.cached()).patchset).toBe(patchset);
  });

  it('fetches a cached patch again when the file was damaged', async () => {
    const world = new World();
    await world.start();
    const { sha256 = '' } = (await (await world.update()).patchFor(buildIdA)) ?? {};
    const [file = ''] = execFileSync('find', [world.cache, '-name', sha256], { encoding: 'utf8' }).split(
      '\n',
    );
    const bytes = readFileSync(file);
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    expect(await refusal((await world.cached()).patchFor(buildIdA))).toBe('FEED_NOT_CACHED');
    expect((await (await world.update()).patchFor(buildIdA))?.sha256).toBe(sha256);
    rmSync(file);
  });
});
