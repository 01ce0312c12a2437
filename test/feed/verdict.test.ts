// An unchanged feed is not verified again: what that rests on, and what ends it.
import {
  chmodSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { longestVerdictMs } from '../../src/feed/verdict.js';
import { World, buildIdA, refusal } from './world.js';

const day = 86_400_000;

function feedDirectory(world: World): string {
  const [name = ''] = readdirSync(world.cache);
  return join(world.cache, name);
}

/** Replaced by every verification, so that the same name means that there was none. */
const generation = (world: World): string => readlinkSync(join(feedDirectory(world), 'current'));

const inGeneration = (world: World, name: string): string =>
  join(feedDirectory(world), generation(world), name);

interface VerdictFile {
  from: number;
  until: number;
  expires: number;
  digest: string;
  indexes: { index: string; signature: string; signedBy: string }[];
}

function readVerdict(world: World): VerdictFile {
  return JSON.parse(readFileSync(inGeneration(world, 'verdict.json'), 'utf8')) as VerdictFile;
}

function changeVerdict(world: World, change: (verdict: VerdictFile) => void): void {
  const verdict = readVerdict(world);
  change(verdict);
  writeFileSync(inGeneration(world, 'verdict.json'), JSON.stringify(verdict));
}

async function updatedWorld(): Promise<World> {
  const world = new World();
  await world.start();
  await world.update();
  return world;
}

function damage(world: World, name: string): void {
  const path = inGeneration(world, name);
  writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from('\n')]));
}

/** Updates, and tells whether the feed was verified again. */
async function isVerifiedAgain(world: World): Promise<boolean> {
  const before = generation(world);
  await world.update();
  return generation(world) !== before;
}

describe('a feed that was verified before', () => {
  it('is not verified again while nothing changes, and says the same', async () => {
    const world = new World();
    await world.start();
    const first = await world.update();
    const before = generation(world);
    const again = await world.update();
    expect(generation(world)).toBe(before);
    const functions = { patchFor: undefined, cachedPath: undefined };
    expect({ ...again, ...functions }).toEqual({ ...first, ...functions });
    // Fetched for the first time, and no less by its hash.
    const patch = await again.patchFor(buildIdA);
    expect(Buffer.from(patch?.bytes ?? [])).toEqual(readFileSync(world.patch(buildIdA, 1)));
    const [entry] = again.patches.filter(({ buildId }) => buildId === buildIdA);
    expect(entry && readFileSync(again.cachedPath(entry))).toEqual(readFileSync(world.patch(buildIdA, 1)));
    expect(generation(world)).toBe(before);
  });

  it('is verified again when the server has something new, or another patchset is chosen', async () => {
    const world = new World();
    const first = await world.start({ now: new Date(Date.now() - day) });
    await world.update();
    const second = await world.publish({ files: [world.patch(buildIdA, 2)] });
    expect((await world.update()).patchset).toBe(second.patchset);
    const before = generation(world);
    expect((await world.update({ select: () => first.patchset })).patchset).toBe(first.patchset);
    expect(generation(world)).not.toBe(before);
  });

  it('counts no longer than a day, nor when the clock was set back', async () => {
    const world = await updatedWorld();
    const { from, until } = readVerdict(world);
    expect(until - from).toBe(longestVerdictMs);
    changeVerdict(world, (verdict) => (verdict.until = Date.now()));
    expect(await isVerifiedAgain(world)).toBe(true);
    changeVerdict(world, (verdict) => (verdict.from = Date.now() + 60_000));
    expect(await isVerifiedAgain(world)).toBe(true);
    changeVerdict(world, (verdict) => (verdict.until = verdict.from + longestVerdictMs + 1));
    expect(await isVerifiedAgain(world)).toBe(true);
    expect(await isVerifiedAgain(world)).toBe(false);
  });

  it('counts no longer than the metadata is valid (no frozen feed)', async () => {
    const world = new World();
    const now = new Date(Date.now() - 6.99 * day);
    await world.start({ now, lifetimes: { timestamp: 6.99 + 8 / 86_400 } });
    await world.update();
    const { until, expires } = readVerdict(world);
    expect(until).toBe(expires);
    await expect
      .poll(async () => await refusal(world.update()), { timeout: 60_000, interval: 500 })
      .toBe('FEED_EXPIRED');
  });

  it('is not trusted once the key that signed it is taken away, whatever is recorded (R4)', async () => {
    const world = await updatedWorld();
    const [key = ''] = readdirSync(world.trusted);
    renameSync(join(world.trusted, key), join(world.directory, key));
    expect(await refusal(world.update())).toBe('FEED_UNTRUSTED');
    renameSync(join(world.directory, key), join(world.trusted, key));
    expect(await isVerifiedAgain(world)).toBe(false);
  });

  it.each(['timestamp.json', 'targets.json', '1.root.json', '1.root.json.asc'])(
    'is verified again when %s of the cache is not what was verified',
    async (name) => {
      const world = await updatedWorld();
      damage(world, name);
      expect(await isVerifiedAgain(world)).toBe(true);
    },
  );

  it('is refused when the snapshot of the cache is not what was verified', async () => {
    const world = await updatedWorld();
    damage(world, 'snapshot.json');
    expect(await refusal(world.update())).toBe('FEED_MISMATCH');
  });

  it('has its signatures verified again when the index is not the one that was', async () => {
    const world = await updatedWorld();
    const other = '0'.repeat(64);
    changeVerdict(world, ({ indexes: [one] }) => one && (one.index = other));
    expect(await isVerifiedAgain(world)).toBe(true);
    changeVerdict(world, ({ indexes: [one] }) => one && (one.signature = other));
    expect(await isVerifiedAgain(world)).toBe(true);
  });

  it('is verified again when the record is damaged or missing, and refused when others can write it (R10)', async () => {
    const world = await updatedWorld();
    writeFileSync(inGeneration(world, 'verdict.json'), '{');
    expect(await isVerifiedAgain(world)).toBe(true);
    rmSync(inGeneration(world, 'verdict.json'));
    expect(await isVerifiedAgain(world)).toBe(true);
    chmodSync(inGeneration(world, 'verdict.json'), 0o666);
    expect(await refusal(world.update())).toBe('UNSAFE_MODE');
  });

  it('is refused as before when its server gives older metadata or none (no replay)', async () => {
    const world = new World();
    await world.start({ now: new Date(Date.now() - day) });
    const old = readFileSync(world.metadata('timestamp.json'));
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    await world.update();
    await world.update();
    const present = readFileSync(world.metadata('timestamp.json'));
    writeFileSync(world.metadata('timestamp.json'), old);
    expect(await refusal(world.update())).toBe('FEED_ROLLBACK');
    rmSync(world.metadata('timestamp.json'));
    expect(await refusal(world.update())).toBe('FEED_UNREACHABLE');
    writeFileSync(world.metadata('timestamp.json'), present);
    expect(await isVerifiedAgain(world)).toBe(false);
  });
});
