// Role keys are replaced: hosts follow good rotations, however late, and refuse bad ones.
import { copyFileSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { refreshFeed, roleNames, rotateRole } from '../../src/feed/index.js';
import { commitMetadata, defaultLifetimes, writeNextRoot } from '../../src/feed/repository.js';
import { loadRoleKey, makeRoleKey } from '../../src/feed/role-keys.js';
import { World, buildIdA, refusal } from './world.js';

describe('rotating a role key', () => {
  it.each(roleNames)('of %s: hosts go on, before and after the next publication', async (role) => {
    const world = new World();
    await world.start();
    await world.update();
    const location = { feedDirectory: world.feed, keyDirectory: world.keys };
    const keyId = await rotateRole({ ...location, role });
    const left = readdirSync(join(world.keys, 'main')).filter((name) => name.startsWith(`${role}-`));
    expect(left).toEqual([`${role}-${keyId.slice(0, 16)}.pem`]);
    expect((await world.update()).patches[0]?.level).toBe(1);
    expect((await world.cached()).patches[0]?.level).toBe(1);
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    expect((await world.update()).patches[0]?.level).toBe(2);
    await refreshFeed(location);
    expect((await world.update()).patches[0]?.level).toBe(2);
    expect((await world.update({ cacheDirectory: world.sub('new-host') })).patches[0]?.level).toBe(2);
  });

  it('of all roles while a host is away: it follows the whole chain', async () => {
    const world = new World();
    await world.start();
    await world.update();
    for (const role of [...roleNames, ...roleNames]) {
      await rotateRole({ feedDirectory: world.feed, keyDirectory: world.keys, role });
    }
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    expect((await world.update()).patches[0]?.level).toBe(2);
    expect((await world.cached()).patches[0]?.level).toBe(2);
  });

  it('no longer accepts what the old key signs', async () => {
    const world = new World();
    await world.start();
    const stolen = world.sub('stolen');
    for (const name of readdirSync(join(world.keys, 'main'))) {
      if (name.endsWith('.pem')) copyFileSync(join(world.keys, 'main', name), join(stolen, name));
    }
    const old = await world.repository(stolen);
    await rotateRole({ feedDirectory: world.feed, keyDirectory: world.keys, role: 'timestamp' });
    await world.update();
    const signing = { now: new Date(), lifetimes: defaultLifetimes };
    await commitMetadata({ ...old, versions: { ...old.versions, timestamp: 9 } }, {}, signing);
    expect(await refusal(world.update())).toBe('FEED_UNTRUSTED');
    expect((await world.cached()).patches[0]?.level).toBe(1);
  });

  it('is refused when the new root is signed by a stranger, by nobody, or skips a version', async () => {
    const world = new World();
    await world.start();
    const { patchset } = await world.update();
    const stranger = new World();
    await stranger.start();
    await rotateRole({ feedDirectory: stranger.feed, keyDirectory: stranger.keys, role: 'root' });
    const evil = readFileSync(stranger.metadata('2.root.json'));
    await rotateRole({ feedDirectory: world.feed, keyDirectory: world.keys, role: 'root' });
    await rotateRole({ feedDirectory: world.feed, keyDirectory: world.keys, role: 'root' });
    const good = readFileSync(world.metadata('2.root.json'));
    const third = readFileSync(world.metadata('3.root.json'));
    rmSync(world.metadata('3.root.json'));
    const unsigned = Buffer.from(good.toString().replace(/"signatures": \[[^\]]*\]/, '"signatures": []'));
    for (const [bytes, code] of [
      [evil, 'FEED_UNTRUSTED'],
      [unsigned, 'FEED_UNTRUSTED'],
      [third, 'FEED_UNTRUSTED'],
      [readFileSync(world.metadata('1.root.json')), 'FEED_ROLLBACK'],
      [Buffer.from('{}'), 'FEED_MALFORMED'],
    ] as const) {
      writeFileSync(world.metadata('2.root.json'), bytes);
      expect(await refusal(world.update())).toBe(code);
      expect((await world.cached()).patchset).toBe(patchset);
    }
    writeFileSync(world.metadata('2.root.json'), good);
    writeFileSync(world.metadata('3.root.json'), third);
    expect((await world.update()).patchset).toBe(patchset);
  });

  it('is refused when only the new root key signed it', async () => {
    const world = new World();
    await world.start();
    const { patchset } = await world.update();
    const repository = await world.repository();
    const key = await makeRoleKey(join(world.keys, 'main'), 'root');
    await writeNextRoot(repository, { now: new Date(), lifetimes: defaultLifetimes }, key);
    const path = world.metadata('2.root.json');
    const both = JSON.parse(readFileSync(path, 'utf8')) as { signatures: { keyid: string }[] };
    expect(both.signatures).toHaveLength(2);
    const alone = { ...both, signatures: both.signatures.filter(({ keyid }) => keyid === key.key.keyID) };
    writeFileSync(path, JSON.stringify(alone));
    expect(await refusal(world.update())).toBe('FEED_UNTRUSTED');
    expect((await world.cached()).patchset).toBe(patchset);
  });

  it('that was interrupted before the new root was written can simply be run again', async () => {
    const world = new World();
    await world.start();
    await makeRoleKey(join(world.keys, 'main'), 'timestamp');
    const location = { feedDirectory: world.feed, keyDirectory: world.keys };
    expect(await refreshFeed(location)).toEqual(['timestamp']);
    const keyId = await rotateRole({ ...location, role: 'timestamp' });
    expect((await loadRoleKey(join(world.keys, 'main'), 'timestamp', keyId)).key.keyID).toBe(keyId);
    expect((await world.update()).patches).toHaveLength(2);
  });
});
