// `kcare-build publish` as its user sees it: words, JSON and exit codes.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { publishCommand } from '../../src/cli/publish-command.js';
import { World, buildIdA, refusal } from '../feed/world.js';

let output = '';

beforeEach(() => {
  output = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    output += String(chunk);
    return true;
  });
});
afterEach(() => vi.restoreAllMocks());

async function run(world: World, ...words: string[]): Promise<string> {
  output = '';
  const place = ['--feed', world.feed, '--keys', world.keys];
  await publishCommand()
    .exitOverride()
    .parseAsync([...place, ...words], { from: 'user' });
  return output;
}

describe('kcare-build publish', () => {
  it('starts a feed, publishes, does nothing twice, renews and rotates', async () => {
    const world = new World();
    const file = world.patch(buildIdA, 1);
    expect(await run(world, '--create-keys', file)).toMatch(
      /^Published patchset U\d{8}_01 in feed "main"\.\n.*OpenPGP key [0-9A-F]{40} /,
    );
    expect(await run(world, file)).toMatch(
      /^Nothing to do: feed "main" holds all of this already \(patchset U\d{8}_01\)\.\n$/,
    );
    expect(JSON.parse(await run(world, file, '--json'))).toMatchObject({ changed: false, prefix: 'main' });
    expect(await run(world, '--refresh')).toBe('Renewed: timestamp.\n');
    expect(await run(world, '--rotate', 'snapshot')).toMatch(/^The snapshot key is now [0-9a-f]{64}\.\n$/);
    expect(await run(world, '--without', buildIdA.toUpperCase())).toMatch(/^Published patchset U\d{8}_02/);
    await world.start({ files: [] });
    expect((await world.update()).patches).toEqual([]);
  });

  it('starts an empty feed under another prefix', async () => {
    const world = new World();
    expect(await run(world, '--create-keys', '--prefix', 'test')).toMatch(
      /^Published an empty feed in feed "test"\./,
    );
    await world.start({ prefix: 'test', files: [] });
    expect((await world.update({ prefix: 'test' })).patchsets).toEqual([]);
  });

  it('gives metadata the lifetimes that were asked for', async () => {
    const world = new World();
    await run(
      world,
      '--create-keys',
      '--timestamp-days',
      '0.5',
      '--root-days',
      '30',
      world.patch(buildIdA, 1),
    );
    await world.start({ files: [] });
    const hours = (Date.parse((await world.update()).expires) - Date.now()) / 3_600_000;
    expect(hours).toBeGreaterThan(11);
    expect(hours).toBeLessThanOrEqual(12);
  });

  it('refuses what makes no sense', async () => {
    const world = new World();
    const text = join(world.directory, 'text');
    writeFileSync(text, 'no patch');
    expect(await refusal(run(world))).toBe('USAGE');
    expect(await refusal(run(world, '--refresh', text))).toBe('USAGE');
    expect(await refusal(run(world, '--refresh', '--timestamp-days', '0'))).toBe('USAGE');
    expect(await refusal(run(world, '--refresh'))).toBe('KEYS_MISSING');
    expect(await refusal(run(world, '--create-keys', text))).toMatch(/MALFORMED/);
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    await expect(run(world, '--rotate', 'everything')).rejects.toMatchObject({
      code: 'commander.invalidArgument',
    });
    await expect(run(world, '--rotate', 'root', '--create-keys')).rejects.toMatchObject({
      code: 'commander.conflictingOption',
    });
  });
});
