// A publisher starts a feed, adds patchsets, is stopped from mistakes, and renews signatures.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { publish, refreshFeed } from '../../src/feed/index.js';
import { World, buildIdA, buildIdB, refusal } from './world.js';

const day = 86_400_000;

/** All files below `directory` with their contents, to see that nothing changed. */
function contents(directory: string): Record<string, string> {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();
  const files = names.filter((name) => statSync(join(directory, name)).isFile());
  return Object.fromEntries(
    files.map((name) => [name, readFileSync(join(directory, name)).toString('base64')]),
  );
}

describe('a publisher', () => {
  it('makes signatures that plain gpg accepts', async () => {
    const world = new World();
    const { patchset = '', fingerprint } = await world.start();
    const home = world.sub('gnupg');
    execFileSync('chmod', ['700', home]);
    const gpg = (...words: string[]): string =>
      execFileSync('gpg', ['--homedir', home, '--batch', '--status-fd', '1', ...words], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    expect(gpg('--import', world.publicKey)).toContain(`IMPORT_OK 1 ${fingerprint}`);
    for (const [signature, signed] of [
      [world.target(`patchsets/${patchset}.json.asc`), world.target(`patchsets/${patchset}.json`)],
      [world.metadata('1.root.json.asc'), world.metadata('1.root.json')],
    ] as const) {
      expect(gpg('--verify', signature, signed)).toContain(`VALIDSIG ${fingerprint}`);
    }
    const other = join(world.directory, 'other');
    writeFileSync(other, 'something else');
    expect(() => gpg('--verify', world.metadata('1.root.json.asc'), other)).toThrow(/BADSIG|BAD signature/);
  });

  it('names patchsets by day and number, and keeps secrets outside of the feed with mode 0600', async () => {
    const world = new World();
    const now = new Date('2025-03-01T12:00:00Z');
    expect((await world.start({ now })).patchset).toBe('U20250301_01');
    expect((await world.publish({ now, files: [world.patch(buildIdA, 2)] })).patchset).toBe('U20250301_02');
    const later = new Date('2025-03-02T00:00:00Z');
    const named = await world.publish({
      now: later,
      files: [world.patch(buildIdA, 3)],
      patchset: 'U20250302_07',
    });
    expect(named.patchset).toBe('U20250302_07');
    expect((await world.publish({ now: later, files: [world.patch(buildIdA, 4)] })).patchset).toBe(
      'U20250302_08',
    );
    const secrets = readdirSync(world.keys, { recursive: true, encoding: 'utf8' }).filter((name) =>
      /pem|private/.test(name),
    );
    expect(secrets).toHaveLength(5);
    for (const name of secrets) expect(statSync(join(world.keys, name)).mode & 0o777).toBe(0o600);
    expect(
      Object.values(contents(world.feed)).some((text) => Buffer.from(text, 'base64').includes('PRIVATE KEY')),
    ).toBe(false);
  });

  it('publishing the same again changes nothing and says so', async () => {
    const world = new World();
    const first = await world.start();
    const before = contents(world.feed);
    const again = await world.publish({ files: [world.patch(buildIdB, 1), world.patch(buildIdA, 1)] });
    expect(again).toMatchObject({ changed: false, patchset: first.patchset, added: [] });
    const name = first.patchset ?? '';
    expect(await world.publish({ files: [world.patch(buildIdA, 1)], patchset: name })).toMatchObject({
      changed: false,
    });
    expect(contents(world.feed)).toEqual(before);
  });

  it.each([
    ['a lower level', (world: World) => [world.patch(buildIdA, 2)], undefined, 'FEED_CONFLICT'],
    [
      'the same level with other contents',
      (world: World) => [world.patch(buildIdA, 3, 'other')],
      undefined,
      'FEED_CONFLICT',
    ],
    [
      'two patches for one build-id',
      (world: World) => [world.patch(buildIdA, 4), world.patch(buildIdA, 5)],
      undefined,
      'FEED_CONFLICT',
    ],
    ['a patchset that exists', (world: World) => [world.patch(buildIdA, 4)], 'U20250301_01', 'FEED_CONFLICT'],
    [
      'a patchset earlier than the newest',
      (world: World) => [world.patch(buildIdA, 4)],
      'U20241231_01',
      'FEED_CONFLICT',
    ],
    ['a patchset with a bad name', (world: World) => [world.patch(buildIdA, 4)], '../evil', 'USAGE'],
    ['a missing file', (world: World) => [join(world.directory, 'nothing')], undefined, 'FILE_MISSING'],
  ])('refuses %s and leaves the feed as it is', async (_what, files, patchset, code) => {
    const world = new World();
    await world.start({ files: [world.patch(buildIdA, 3)], patchset: 'U20250301_01' });
    const before = contents(world.feed);
    const attempt = world.publish({ files: files(world), ...(patchset === undefined ? {} : { patchset }) });
    expect(await refusal(attempt)).toBe(code);
    expect(contents(world.feed)).toEqual(before);
  });

  it('refuses files that are no patches', async () => {
    const world = new World();
    await world.start();
    const before = contents(world.feed);
    const damaged = world.patch(buildIdA, 9);
    truncateSync(damaged, 500);
    expect(await refusal(world.publish({ files: [damaged, world.patch(buildIdB, 2)] }))).toMatch(
      /MALFORMED|UNSUPPORTED/,
    );
    expect(await refusal(world.publish({ files: ['/bin/true'] }))).toMatch(/MALFORMED|UNSUPPORTED/);
    expect(contents(world.feed)).toEqual(before);
  });

  it('can leave a patch out of the next patchset', async () => {
    const world = new World();
    await world.start();
    await world.publish({ without: [buildIdA] });
    const state = await world.update();
    expect(state.patches.map(({ buildId }) => buildId)).toEqual([buildIdB]);
    expect(await world.publish({ without: [buildIdA] })).toMatchObject({ changed: false });
    expect(await refusal(world.publish({ without: ['cc'.repeat(20)] }))).toBe('USAGE');
    expect(await refusal(world.publish({ files: [world.patch(buildIdA, 1, 'other')] }))).toBe(
      'FEED_CONFLICT',
    );
  });

  it('can drop old patchsets, with the patches that only those had', async () => {
    const world = new World();
    await world.start();
    for (const level of [2, 3]) await world.publish({ files: [world.patch(buildIdA, level)] });
    const last = await world.publish({ files: [world.patch(buildIdA, 4)], keep: 2 });
    const state = await world.update();
    expect(state.patchsets).toHaveLength(2);
    expect(state.patchset).toBe(last.patchset);
    expect((await state.patchFor(buildIdB))?.level).toBe(1);
    const paths = Object.keys(world.targetsMetadata());
    expect(paths.filter((path) => path.startsWith('patches/')).sort()).toEqual(
      [`${buildIdA}-3`, `${buildIdA}-4`, `${buildIdB}-1`].map((name) => `patches/${name}.kpatch`),
    );
    expect(paths).toHaveLength(3 + 2 * 2 + 1);
    expect(await refusal(world.publish({ keep: 0 }))).toBe('USAGE');
  });

  it('needs keys, and only makes them when told to', async () => {
    const world = new World();
    expect(await refusal(world.publish({ createKeys: false }))).toBe('KEYS_MISSING');
    await world.start();
    expect(await refusal(world.publish({ createKeys: false, prefix: 'test' }))).toBe('FEED_MISSING');
    expect(await refusal(world.publish({ keyDirectory: join(world.feed, 'keys') }))).toBe('USAGE');
    const [timestampKey = ''] = readdirSync(join(world.keys, 'main')).filter((name) =>
      name.startsWith('timestamp-'),
    );
    rmSync(join(world.keys, 'main', timestampKey));
    expect(await refusal(world.publish({ files: [world.patch(buildIdA, 2)] }))).toBe('KEYS_MISSING');
    expect((await world.update()).patches[0]?.level).toBe(1);
  });

  it('refuses keys that others can read or change (R10)', async () => {
    const world = new World();
    await world.start();
    execFileSync('chmod', ['o+r', join(world.keys, 'openpgp-private.asc')]);
    expect(await refusal(world.publish({ files: [world.patch(buildIdA, 2)] }))).toBe('UNSAFE_MODE');
    execFileSync('chmod', ['600', join(world.keys, 'openpgp-private.asc')]);
    execFileSync('chmod', ['777', world.keys]);
    expect(await refusal(world.publish({ files: [world.patch(buildIdA, 2)] }))).toBe('UNSAFE_MODE');
  });

  it('renews what is about to expire, and hosts go on', async () => {
    const world = new World();
    const past = new Date(Date.now() - 100 * day);
    const { patchset } = await world.start({ now: past });
    expect(await refusal(world.update())).toBe('FEED_EXPIRED');
    const location = { feedDirectory: world.feed, keyDirectory: world.keys };
    expect(await refreshFeed(location)).toEqual(['targets', 'snapshot', 'timestamp']);
    expect((await world.update()).patchset).toBe(patchset);
    expect(await refreshFeed(location)).toEqual(['timestamp']);
    const future = { ...location, lifetimes: { root: 10_000 } };
    expect(await refreshFeed(future)).toEqual(['root', 'timestamp']);
    expect((await world.update()).patchset).toBe(patchset);
  });

  it('publishes from two places at once without losing a patch', async () => {
    const world = new World();
    await world.start();
    const all = await Promise.all(
      [1, 2, 3, 4].map(async (n) => await world.publish({ files: [world.patch(`${n}${n}`.repeat(20), 1)] })),
    );
    expect(new Set(all.map(({ patchset }) => patchset)).size).toBe(4);
    expect((await world.update()).patches).toHaveLength(6);
  });

  it('goes on after a crash at any point', async () => {
    const world = new World();
    await world.start();
    const before = contents(join(world.feed, 'main'));
    const next = [world.patch(buildIdA, 2)];
    await world.publish({ files: next });
    const after = contents(join(world.feed, 'main'));
    // The order in which publish writes: what a crash leaves is any first part of this list.
    const rank = (name: string): number =>
      [
        'targets/patches',
        'targets/patchsets',
        'targets/',
        'targets.json',
        'snapshot.json',
        'timestamp.json',
      ].findIndex((part) => name.includes(part));
    const written = Object.keys(after)
      .filter((name) => after[name] !== before[name])
      .sort((a, b) => rank(a) - rank(b));
    expect(written.at(-1)).toBe('metadata/timestamp.json');
    expect(written.length).toBeGreaterThanOrEqual(6);
    for (let count = 0; count < written.length; count++) {
      rmSync(join(world.feed, 'main'), { recursive: true });
      const present = {
        ...before,
        ...Object.fromEntries(written.slice(0, count).map((name) => [name, after[name]])),
      };
      for (const [name, text] of Object.entries(present)) {
        const path = join(world.feed, 'main', name);
        mkdirSync(join(path, '..'), { recursive: true });
        writeFileSync(path, Buffer.from(text ?? '', 'base64'));
      }
      const cacheDirectory = join(world.directory, `cache-${count}`);
      expect((await world.update({ cacheDirectory })).patches[0]?.level).toBe(1);
      expect(
        (await publish({ feedDirectory: world.feed, keyDirectory: world.keys, files: next })).changed,
      ).toBe(true);
      const state = await world.update({ cacheDirectory });
      expect((await state.patchFor(buildIdA))?.level).toBe(2);
    }
  });
});
