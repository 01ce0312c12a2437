// A full disk: on the host the state before stays usable, at the publisher the feed before stays whole.
import { execFileSync } from 'node:child_process';
import { appendFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { asKcareError } from '../../src/base/errors.js';
import { World, buildIdA } from './world.js';

/** A file system of its own at `path`; needs root, and fails the test when it cannot be had. */
function smallDisk(path: string, kilobytes: number): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kilobytes}k,mode=755`, 'kcare-test', path]);
  onTestFinished(() => void execFileSync('umount', ['-l', path]));
}

function fill(directory: string, leaveKilobytes: number): string {
  const path = join(directory, 'filler');
  const { bavail, bsize } = statfsSync(directory);
  writeFileSync(path, Buffer.alloc(Math.max(0, bavail * bsize - leaveKilobytes * 1024), 1));
  if (leaveKilobytes === 0) {
    expect(() => appendFileSync(path, Buffer.alloc(65_536))).toThrow(/ENOSPC/);
  }
  return path;
}

async function failure(action: Promise<unknown>): Promise<string> {
  try {
    await action;
    return 'accepted';
  } catch (error) {
    return asKcareError(error).code;
  }
}

describe('a full disk', () => {
  it('on the host leaves the earlier state usable, however much space is left', async () => {
    const world = new World();
    smallDisk(world.sub('disk'), 512);
    const cacheDirectory = join(world.directory, 'disk', 'cache');
    const cached = async (): Promise<number | undefined> => {
      const { cachedFeed } = await import('../../src/feed/index.js');
      const state = await cachedFeed({ server: world.feed, cacheDirectory, keyDirectory: world.trusted });
      return (await state.patchFor(buildIdA))?.level;
    };
    await world.start();
    await (await world.update({ cacheDirectory })).patchFor(buildIdA);
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    let refused = 0;
    for (let kilobytes = 0; kilobytes <= 60; kilobytes += 4) {
      const filler = fill(join(world.directory, 'disk'), kilobytes);
      const code = await failure(world.update({ cacheDirectory }));
      rmSync(filler);
      expect(['NO_SPACE', 'accepted']).toContain(code);
      if (code === 'accepted') break;
      refused += 1;
      expect(await cached()).toBe(1);
    }
    expect(refused).toBeGreaterThan(3);
    expect((await (await world.update({ cacheDirectory })).patchFor(buildIdA))?.level).toBe(2);
    expect(await cached()).toBe(2);
  });

  it('at the publisher leaves the earlier feed whole, and publishing again completes it', async () => {
    const world = new World();
    smallDisk(world.sub('feed'), 512);
    await world.start();
    const files = [world.patch(buildIdA, 2)];
    let refused = 0;
    for (let kilobytes = 0; kilobytes <= 100; kilobytes += 4) {
      const filler = fill(world.feed, kilobytes);
      const code = await failure(world.publish({ files }));
      rmSync(filler);
      expect(['NO_SPACE', 'accepted']).toContain(code);
      if (code === 'accepted') break;
      refused += 1;
      expect((await world.update()).patches[0]?.level).toBe(1);
    }
    expect(refused).toBeGreaterThan(3);
    await world.publish({ files });
    expect((await (await world.update()).patchFor(buildIdA))?.level).toBe(2);
  });
});
