// What an attacker between publisher and host can do to a feed, and that each attempt changes nothing.
import { copyFileSync, cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Targets } from '@tufjs/models';
import { TargetFile } from '@tufjs/models';
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { hashedPath } from '../../src/feed/names.js';
import { makeSigningKey, readSigningKey, signDetached } from '../../src/feed/openpgp.js';
import { commitMetadata, defaultLifetimes } from '../../src/feed/repository.js';
import { random } from '../random.js';
import { World, badServer, buildIdA, buildIdB, refusal } from './world.js';

const day = 86_400_000;
const now = (): Date => new Date();

function edit(path: string, change: (text: string) => string): void {
  const before = readFileSync(path, 'utf8');
  const after = change(before);
  expect(after).not.toBe(before);
  writeFileSync(path, after);
}

function flip(path: string, at = 50): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

/** What someone with all role keys, but without the OpenPGP key, can do: name other targets. */
async function resign(
  world: World,
  change: (targets: Record<string, TargetFile>, write: (path: string, bytes: Buffer) => void) => void,
): Promise<void> {
  const directory = join(world.feed, 'main');
  const repository = await world.repository();
  const targets: Targets['targets'] = { ...repository.targets.targets };
  change(targets, (path, bytes) => {
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(join(directory, 'targets', hashedPath(path, sha256)), bytes);
    targets[path] = new TargetFile({ path, length: bytes.length, hashes: { sha256 } });
  });
  await commitMetadata(repository, { targets }, { now: now(), lifetimes: defaultLifetimes });
}

interface Attack {
  readonly name: string;
  readonly code: string;
  /** `first` and `second` are the names of the patchsets; the client has verified the first. */
  readonly attack: (world: World, first: string, second: string) => Promise<void> | void;
}

const attacks: readonly Attack[] = [
  {
    name: 'changes the list of targets',
    code: 'FEED_MISMATCH',
    attack: (world) => flip(world.metadata('2.targets.json')),
  },
  {
    name: 'changes the snapshot',
    code: 'FEED_MISMATCH',
    attack: (world) => flip(world.metadata('2.snapshot.json')),
  },
  {
    name: 'changes the timestamp',
    code: 'FEED_UNTRUSTED',
    attack: (world) =>
      edit(world.metadata('timestamp.json'), (text) => text.replace('"version": 2,', '"version": 9,')),
  },
  {
    name: 'moves the expiry of the timestamp',
    code: 'FEED_UNTRUSTED',
    attack: (world) =>
      edit(world.metadata('timestamp.json'), (text) => text.replace(/"expires": "\d+/, '"expires": "2999')),
  },
  {
    name: 'takes the signatures away',
    code: 'FEED_UNTRUSTED',
    attack: (world) =>
      edit(world.metadata('timestamp.json'), (text) =>
        text.replace(/"signatures": \[[^\]]*\]/, '"signatures": []'),
      ),
  },
  {
    name: 'cuts the timestamp short',
    code: 'FEED_MALFORMED',
    attack: (world) => truncateSync(world.metadata('timestamp.json'), 100),
  },
  {
    name: 'offers the snapshot of the first patchset under the number of the second',
    code: 'FEED_MISMATCH',
    attack: (world) => copyFileSync(world.metadata('1.snapshot.json'), world.metadata('2.snapshot.json')),
  },
  {
    name: 'takes the snapshot away',
    code: 'FEED_UNREACHABLE',
    attack: (world) => rmSync(world.metadata('2.snapshot.json')),
  },
  {
    name: 'changes the index of the patchset',
    code: 'FEED_MISMATCH',
    attack: (world, _first, second) =>
      edit(world.target(`patchsets/${second}.json`), (text) => text.replace('7.5', '0.0')),
  },
  {
    name: 'cuts the index short',
    code: 'FEED_MISMATCH',
    attack: (world, _first, second) => truncateSync(world.target(`patchsets/${second}.json`), 64),
  },
  {
    name: 'makes the index longer',
    code: 'FEED_MISMATCH',
    attack: (world, _first, second) =>
      writeFileSync(world.target(`patchsets/${second}.json`), ' ', { flag: 'a' }),
  },
  {
    name: 'puts the signature of another patchset beside the index, with all role keys',
    code: 'PATCHSET_UNSIGNED',
    attack: async (world, first, second) =>
      await resign(world, (_targets, write) =>
        write(`patchsets/${second}.json.asc`, readFileSync(world.target(`patchsets/${first}.json.asc`))),
      ),
  },
  {
    name: 'takes the OpenPGP signature away, with all role keys',
    code: 'PATCHSET_UNSIGNED',
    attack: async (world, _first, second) =>
      await resign(world, (targets) => {
        Reflect.deleteProperty(targets, `patchsets/${second}.json.asc`);
      }),
  },
  {
    name: 'changes the index with all role keys',
    code: 'PATCHSET_UNSIGNED',
    attack: async (world, _first, second) =>
      await resign(world, (_targets, write) => {
        const text = readFileSync(world.target(`patchsets/${second}.json`), 'utf8');
        write(`patchsets/${second}.json`, Buffer.from(text.replace('7.5', '0.0')));
      }),
  },
  {
    name: 'signs an evil index with an OpenPGP key of its own and all role keys',
    code: 'PATCHSET_UNSIGNED',
    attack: async (world, _first, second) => {
      const key = await readSigningKey(Buffer.from((await makeSigningKey('kcare feed', now())).privateKey));
      const index = readFileSync(world.target(`patchsets/${second}.json`));
      const signature = await signDetached(index, key, now());
      await resign(world, (_targets, write) => write(`patchsets/${second}.json.asc`, signature));
    },
  },
  {
    name: 'offers the first index, well signed, as the second, with all role keys',
    code: 'FEED_MISMATCH',
    attack: async (world, first, second) =>
      await resign(world, (_targets, write) => {
        for (const end of ['.json', '.json.asc']) {
          write(`patchsets/${second}${end}`, readFileSync(world.target(`patchsets/${first}${end}`)));
        }
      }),
  },
  {
    name: 'exchanges a patch for another with all role keys',
    code: 'FEED_MISMATCH',
    attack: async (world) =>
      await resign(world, (_targets, write) =>
        write(`patches/${buildIdA}-2.kpatch`, readFileSync(world.target(`patches/${buildIdB}-1.kpatch`))),
      ),
  },
  {
    name: 'takes a patch out of the list with all role keys',
    code: 'FEED_MISMATCH',
    attack: async (world) =>
      await resign(world, (targets) => {
        Reflect.deleteProperty(targets, `patches/${buildIdA}-2.kpatch`);
      }),
  },
  {
    name: 'makes the list of patchsets nonsense with all role keys',
    code: 'FEED_MALFORMED',
    attack: async (world) =>
      await resign(world, (_targets, write) =>
        write('feed.json', Buffer.from('[{"name":"../../etc","released":1}]')),
      ),
  },
];

describe('an attacker who', () => {
  it.each(attacks)('$name is refused', async ({ code, attack }) => {
    const world = new World();
    const first = (await world.start()).patchset ?? '';
    await (await world.update()).patchFor(buildIdA);
    const second = (await world.publish({ files: [world.patch(buildIdA, 2)] })).patchset ?? '';
    cpSync(world.feed, join(world.directory, 'good'), { recursive: true });
    await attack(world, first, second);

    expect(await refusal(world.update())).toBe(code);
    const kept = await world.cached();
    expect(kept.patchset).toBe(first);
    expect((await kept.patchFor(buildIdA))?.level).toBe(1);

    rmSync(world.feed, { recursive: true });
    renameSync(join(world.directory, 'good'), world.feed);
    const state = await world.update();
    expect(state.patchset).toBe(second);
    expect((await state.patchFor(buildIdA))?.level).toBe(2);
  });

  it.each([
    ['changes a byte', (path: string) => flip(path, 200)],
    ['cuts it short', (path: string) => truncateSync(path, 100)],
    ['empties it', (path: string) => truncateSync(path, 0)],
    ['makes it longer', (path: string) => writeFileSync(path, 'x', { flag: 'a' })],
    ['puts another patch there', (path: string, other: string) => copyFileSync(other, path)],
  ])('gets at a patch file and %s is refused before the patch is read (R4)', async (_name, damage) => {
    const world = new World();
    await world.start();
    const state = await world.update();
    damage(world.target(`patches/${buildIdA}-1.kpatch`), world.target(`patches/${buildIdB}-1.kpatch`));
    expect(await refusal(state.patchFor(buildIdA))).toBe('FEED_MISMATCH');
    expect(await refusal((await world.update()).patchFor(buildIdA))).toBe('FEED_MISMATCH');
    expect((await state.patchFor(buildIdB))?.level).toBe(1);
    expect(await refusal((await world.cached()).patchFor(buildIdA))).toBe('FEED_NOT_CACHED');
  });

  it('serves the timestamp of last week again is refused: FEED_ROLLBACK', async () => {
    const world = new World();
    await world.start();
    cpSync(world.feed, join(world.directory, 'old'), { recursive: true });
    const second = await world.publish({ files: [world.patch(buildIdA, 2)] });
    await world.update();
    copyFileSync(
      join(world.directory, 'old', 'main', 'metadata', 'timestamp.json'),
      world.metadata('timestamp.json'),
    );
    expect(await refusal(world.update())).toBe('FEED_ROLLBACK');
    expect((await world.cached()).patchset).toBe(second.patchset);
  });

  it('announces an older snapshot in a newer timestamp is refused: FEED_ROLLBACK', async () => {
    const world = new World();
    await world.start();
    const old = await world.repository();
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    await world.update();
    const versions = { ...old.versions, timestamp: 50 };
    await commitMetadata({ ...old, versions }, {}, { now: now(), lifetimes: defaultLifetimes });
    expect(await refusal(world.update())).toBe('FEED_ROLLBACK');
  });

  it('announces older targets in a newer snapshot is refused: FEED_ROLLBACK', async () => {
    const world = new World();
    await world.start();
    const old = await world.repository();
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    await world.update();
    const versions = { ...old.versions, snapshot: 50, timestamp: 50 };
    await commitMetadata(
      { ...old, versions },
      { snapshot: true },
      { now: now(), lifetimes: defaultLifetimes },
    );
    expect(await refusal(world.update())).toBe('FEED_ROLLBACK');
    expect((await world.cached()).patches[0]?.level).toBe(2);
  });

  it.each(['timestamp', 'snapshot', 'targets', 'root'] as const)(
    'freezes the feed is refused once its %s expires',
    async (role) => {
      const world = new World();
      await world.start({ now: new Date(Date.now() - 30 * day), lifetimes: { timestamp: 60, [role]: 29 } });
      expect(await refusal(world.update())).toBe('FEED_EXPIRED');
      expect(await refusal(world.cached())).toBe('FEED_NOT_CACHED');
    },
  );

  it('signs the first root with a key that was not imported is refused', async () => {
    const world = new World();
    const other = new World();
    await world.start();
    await other.start();
    expect(await refusal(other.update({ server: world.feed }))).toBe('FEED_UNTRUSTED');
    const nobody = new World();
    await nobody.publish();
    expect(await refusal(nobody.update())).toBe('FEED_UNTRUSTED');
  });

  it('changes the first root, or its signature, is refused by a new host', async () => {
    for (const name of ['1.root.json', '1.root.json.asc']) {
      const world = new World();
      await world.start();
      flip(world.metadata(name), 150);
      expect(await refusal(world.update())).toBe('FEED_UNTRUSTED');
    }
  });

  it('serves the feed "test" in the place of "main" is refused', async () => {
    const world = new World();
    await world.start();
    await world.publish({ prefix: 'test', files: [world.patch(buildIdA, 7)] });
    rmSync(join(world.feed, 'main'), { recursive: true });
    cpSync(join(world.feed, 'test'), join(world.feed, 'main'), { recursive: true });
    expect(await refusal(world.update())).toBe('FEED_UNTRUSTED');
    expect(await refusal(world.update({ prefix: 'test' }))).toBe('accepted');
  });

  it('sends garbage in the place of any metadata file never crashes or convinces a host', async () => {
    const world = new World();
    const { patchset: first } = await world.start();
    await world.update();
    const second = (await world.publish({ files: [world.patch(buildIdA, 2)] })).patchset ?? '';
    const names = [
      '2.root.json',
      'timestamp.json',
      '2.snapshot.json',
      '2.targets.json',
      '1.root.json',
      '1.root.json.asc',
    ];
    const original = new Map(
      names
        .filter((name) => name !== '2.root.json')
        .map((name) => [name, readFileSync(world.metadata(name))]),
    );
    const empty = join(world.directory, 'empty-cache');
    const next = random(20_261_122);
    for (const name of names) {
      const bytes = original.get(name) ?? original.get('1.root.json') ?? Buffer.alloc(0);
      for (let round = 0; round < 25; round++) {
        writeFileSync(world.metadata(name), mutate(bytes, next));
        // The first root matters to new hosts only; nested nonsense must not exhaust the stack either.
        const cacheDirectory = name.startsWith('1.') ? empty : world.cache;
        const code = await refusal(world.update({ cacheDirectory }));
        expect([
          'accepted',
          'FEED_UNTRUSTED',
          'FEED_MISMATCH',
          'FEED_MALFORMED',
          'FEED_ROLLBACK',
          'FEED_EXPIRED',
        ]).toContain(code);
        if (code === 'accepted') expect((await world.update({ cacheDirectory })).patchset).toBe(second);
        else if (cacheDirectory === world.cache)
          expect([first, second]).toContain((await world.cached()).patchset);
        rmSync(empty, { recursive: true, force: true });
      }
      if (original.has(name)) writeFileSync(world.metadata(name), bytes);
      else rmSync(world.metadata(name));
    }
    expect((await world.update()).patchset).toBe(second);
  });

  it('can write to the served directory gets nothing signed by the publisher', async () => {
    const world = new World();
    const { patchset: first = '' } = await world.start();
    const tampering: Record<string, (() => void)[]> = {
      FEED_MISMATCH: [
        () => edit(world.metadata('1.targets.json'), (text) => text.replace('"length": ', '"length": 1')),
        () => edit(world.target(`patchsets/${first}.json`), (text) => text.replace('7.5', '0.0')),
      ],
      FEED_UNTRUSTED: [
        () =>
          edit(world.metadata('timestamp.json'), (text) => text.replace('"version": 1,', '"version": 7,')),
        () => flip(world.metadata('1.root.json'), 150),
      ],
    };
    cpSync(world.feed, join(world.directory, 'good'), { recursive: true });
    for (const [code, changes] of Object.entries(tampering)) {
      for (const change of changes) {
        change();
        expect(await refusal(world.publish({ files: [world.patch(buildIdA, 2)] }))).toBe(code);
        rmSync(world.feed, { recursive: true });
        cpSync(join(world.directory, 'good'), world.feed, { recursive: true });
      }
    }
    await world.publish({ files: [world.patch(buildIdA, 2)] });
    expect((await world.update()).patches[0]?.level).toBe(2);
  });

  it('sends without end is cut off at the announced size', async () => {
    const world = new World();
    await world.start();
    let sent = 0;
    const flood = (_request: unknown, response: import('node:http').ServerResponse): void => {
      const chunk = Buffer.alloc(65_536, 0x20);
      const pour = (): void => {
        while (!response.destroyed) {
          sent += chunk.length;
          if (!response.write(chunk)) break;
        }
      };
      response.on('drain', pour);
      pour();
    };
    for (const [name, most] of [
      ['1.root.json', 600_000],
      ['timestamp.json', 20_000],
      ['.kpatch', 20_000],
    ] as const) {
      sent = 0;
      const server = await badServer(world.feed, { [name]: flood });
      const action = async (): Promise<unknown> => await (await world.update({ server })).patchFor(buildIdA);
      expect(await refusal(action())).toBe('FEED_MISMATCH');
      // What lies in the buffers of two sockets comes on top.
      expect(sent).toBeLessThan(most + 32_000_000);
    }
  });

  it('answers too slowly, or breaks off, is given up', async () => {
    const world = new World();
    await world.start();
    const drip = (_request: unknown, response: import('node:http').ServerResponse): void => {
      const timer = setInterval(() => response.write(' '), 50);
      response.on('close', () => clearInterval(timer));
    };
    const slow = await badServer(world.feed, { 'timestamp.json': drip });
    expect(await refusal(world.update({ server: slow, timeoutMs: 600 }))).toBe('FEED_UNREACHABLE');
    const silent = await badServer(world.feed, { '1.root.json': () => undefined });
    expect(await refusal(world.update({ server: silent, timeoutMs: 600 }))).toBe('FEED_UNREACHABLE');
    const broken = await badServer(world.feed, {
      'timestamp.json': (_request, response) => {
        response.writeHead(200, { 'content-length': '500' });
        response.write('{"signed":');
        setTimeout(() => response.destroy(), 20);
      },
    });
    expect(await refusal(world.update({ server: broken }))).toBe('FEED_UNREACHABLE');
    for (const status of [403, 404, 500, 503]) {
      const failing = await badServer(world.feed, {
        'timestamp.json': (_request, response) => void response.writeHead(status).end('<html>'),
      });
      expect(await refusal(world.update({ server: failing }))).toBe('FEED_UNREACHABLE');
    }
  });

  it('makes a server fail once cannot keep a patch from a host', async () => {
    const world = new World();
    await world.start();
    let failures = 0;
    const server = await badServer(world.feed, {
      'timestamp.json': (_request, response) => {
        if (failures++ === 0) response.writeHead(503).end();
        else response.end(readFileSync(world.metadata('timestamp.json')));
      },
    });
    expect((await world.update({ server, retries: 2 })).patches).toHaveLength(2);
    expect(failures).toBe(2);
  });
});

function mutate(bytes: Buffer, next: () => number): Buffer {
  const copy = Buffer.from(bytes);
  const at = next() % Math.max(1, copy.length);
  switch (next() % 6) {
    case 0:
      copy[at] = next() & 0xff;
      return copy;
    case 1:
      return copy.subarray(0, at);
    case 2:
      return Buffer.concat([copy.subarray(0, at), copy.subarray(next() % copy.length)]);
    case 3: {
      const values = ['null', '-1', '1e999', '[]', '{}', '"__proto__"', 'true', '99999999999999999999'];
      const value = values[next() % values.length] ?? '0';
      const fields = [...copy.toString().matchAll(/: ("[^"]*"|\d+)/g)];
      const field = fields[next() % Math.max(1, fields.length)];
      if (field === undefined) return Buffer.from(value);
      const text = copy.toString();
      return Buffer.from(
        `${text.slice(0, field.index)}: ${value}${text.slice(field.index + field[0].length)}`,
      );
    }
    case 4:
      return Buffer.from('['.repeat(5000));
    default:
      return Buffer.from(Array.from({ length: next() % 2000 }, () => next() & 0xff));
  }
}
