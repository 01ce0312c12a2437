// The programs of a publisher, as started from a shell: kcare-server, and publishing that is killed at any moment.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { World, buildIdA, buildIdB } from '../feed/world.js';

const project = fileURLToPath(new URL('../../', import.meta.url));
const program = join(project, 'bin', 'kcare-server');

function start(...words: string[]): ChildProcess {
  if (!existsSync(join(project, 'dist', 'src', 'cli', 'kcare-server.js'))) {
    throw new Error('The programs are not built: run npm run build first.');
  }
  return spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] });
}

async function run(...words: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const child = start(program, ...words);
  const [out, err] = await Promise.all([
    text(child.stdout ?? Readable.from([])),
    text(child.stderr ?? Readable.from([])),
    once(child, 'close'),
  ]);
  return { code: child.exitCode, out, err };
}

describe('kcare-server', () => {
  it('prints its address, serves a feed, and ends in order on SIGTERM', async () => {
    const world = new World();
    await world.start();
    const child = start(program, '--feed', world.feed, '--listen', '127.0.0.1:0', '--json');
    const log = text(child.stderr ?? Readable.from([]));
    const lines = createInterface({ input: child.stdout ?? process.stdin });
    const [line] = (await once(lines, 'line')) as [string];
    const { url } = JSON.parse(line) as { url: string };
    const state = await world.update({ server: url });
    expect((await state.patchFor(buildIdA))?.level).toBe(1);
    child.kill('SIGTERM');
    await once(child, 'exit');
    expect(child.exitCode).toBe(0);
    expect(await log).toContain('/main/metadata/timestamp.json');
  });

  it('says what is wrong with its options', async () => {
    expect((await run()).code).toBe(64);
    expect((await run('--help')).code).toBe(0);
    const missing = await run('--feed', '/proc/nonexistent', '--json');
    expect(missing.code).toBe(1);
    expect(JSON.parse(missing.out)).toMatchObject({ error: { code: 'FILE_MISSING' } });
    const address = await run('--feed', '/tmp', '--listen', 'nonsense');
    expect(address).toMatchObject({ code: 64, out: '' });
    expect(address.err).toContain('HOST:PORT');
  });
});

describe('publishing', () => {
  it('that is killed at any moment leaves a feed that hosts can use and that can be published to', async () => {
    const world = new World();
    await world.start();
    const library = join(project, 'dist', 'src', 'feed', 'index.js');
    let level = 1;
    let killed = 0;
    for (let round = 0; round < 12; round++) {
      const file = world.patch(buildIdA, level + 1);
      const options = { feedDirectory: world.feed, keyDirectory: world.keys, files: [file] };
      const script = `import { publish } from ${JSON.stringify(library)};
        process.stdout.write('ready\\n');
        await publish(${JSON.stringify(options)});`;
      const child = start('--input-type=module', '--eval', script);
      const ended = once(child, 'exit');
      await once(createInterface({ input: child.stdout ?? process.stdin }), 'line');
      await sleep(round * 12);
      child.kill('SIGKILL');
      await ended;
      if (child.signalCode === 'SIGKILL') killed += 1;
      const state = await world.update();
      const now = state.patches.find(({ buildId }) => buildId === buildIdA)?.level ?? 0;
      expect([level, level + 1]).toContain(now);
      expect((await state.patchFor(buildIdA))?.level).toBe(now);
      level = now;
    }
    expect(killed).toBeGreaterThan(0);
    await world.publish({ files: [world.patch(buildIdB, 9), world.patch(buildIdA, level + 1)] });
    expect((await world.update()).patches.map((entry) => entry.level)).toEqual([level + 1, 9]);
  });
});
