// R2, R7 and R1: memory that a dead patcher mapped and did not mark is removed, and nothing else is, whatever an intent says.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { handmadePatch, returns } from '../../fixtures/support/handmade.js';
import { readMappings } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { hex, remoteAddress } from '../../src/base/address.js';
import { apply, inspect, unload } from '../../src/engine/index.js';
import { IntentJournal, type Intent } from '../../src/engine/intents.js';
import { writePatch } from '../../src/patchfile/index.js';
import { answers, ask, Workshop } from './conditions.js';

const start = remoteAddress(0x1000_0000_0000n);
const size = 0x3000;
const header = Buffer.alloc(5000, 0x41);

describe('an intent', () => {
  let workshop: Workshop;
  let program: Program;
  let directory: string;

  beforeAll(() => {
    workshop = new Workshop();
  });
  afterAll(() => workshop.close());
  beforeEach(async () => {
    directory = mkdtempSync(join(workshop.directory, 'intents-'));
    program = await workshop.start('none');
  });
  afterEach(() => workshop.endAll());

  const options = () => ({ waitMs: 0, dryRun: false, intentDirectory: directory });
  const file = (pid = program.pid) => join(directory, String(pid));

  /** Leaves an intent as a patcher does that dies behind its announcement, or before it. */
  async function leaveIntent(
    changes: Partial<Pick<Intent, 'pid' | 'start' | 'size' | 'begun'>> = {},
  ): Promise<void> {
    const { begun = true, ...rest } = changes;
    const journal = await IntentJournal.open(directory);
    const died = new Error('died');
    const intent = { pid: program.pid, start, size, header, ...rest };
    const die = (descriptor: number): never => {
      writeSync(descriptor, '1', 0);
      throw died;
    };
    expect(() => journal.during(intent, die)).toThrow(died);
    if (!begun) writeFileSync(file(), readFileSync(file(), 'utf8').replace(/^1/, '0'));
  }

  /** Executable memory of the process, as the call that maps an image makes it, or with these contents. */
  async function mapCode(length = size, contents?: Uint8Array): Promise<void> {
    const source = join(workshop.directory, 'contents');
    if (contents) writeFileSync(source, contents);
    const question = `code ${start.toString(16)} ${length.toString(16)}${contents ? ` ${source}` : ''}`;
    expect(await ask(program, question)).toBe(`code ${hex(start)}`);
  }

  async function expectLeftAlone(): Promise<void> {
    const before = readMappings(program.pid);
    expect(await unload(program.pid, options())).toMatchObject({ result: 'unchanged' });
    expect(readMappings(program.pid)).toEqual(before);
    expect(existsSync(file())).toBe(false);
    expect(await ask(program, 'answer')).toBe('answer 42');
  }

  it('for empty memory is carried out: the memory goes', async () => {
    const before = readMappings(program.pid);
    await leaveIntent();
    await mapCode();
    expect(await unload(program.pid, options())).toMatchObject({ result: 'unchanged' });
    expect(readMappings(program.pid)).toEqual(before);
    expect(readdirSync(directory)).toEqual([]);
  });

  it('for memory that holds the end of its header only is carried out', async () => {
    const before = readMappings(program.pid);
    await leaveIntent();
    await mapCode(size, Buffer.concat([Buffer.alloc(4096), header.subarray(4096)]));
    expect(await unload(program.pid, options())).toMatchObject({ result: 'unchanged' });
    expect(readMappings(program.pid)).toEqual(before);
  });

  it('that was not announced is dropped', async () => {
    await leaveIntent({ begun: false });
    await mapCode();
    await expectLeftAlone();
  });

  it('is dropped where nothing was mapped, after all threads have been stopped once', async () => {
    await leaveIntent();
    const report = await unload(program.pid, options());
    expect(report.pauseNs?.longest).toBeGreaterThan(0);
    await leaveIntent();
    await expectLeftAlone();
  });

  it.each([
    ['is larger', size + 0x1000, undefined],
    ['is smaller', size - 0x1000, undefined],
    ['holds something', size, Buffer.from('own')],
    ['holds something on its last page', size, Buffer.concat([Buffer.alloc(0x2fff), Buffer.from('x')])],
    ['begins with the header, as an image does', size, header],
  ])('for memory that %s is dropped, and the memory stays', async (_, length, contents) => {
    await leaveIntent();
    await mapCode(length, contents);
    await expectLeftAlone();
  });

  it('for memory that begins before it is dropped, and the memory stays', async () => {
    await leaveIntent({ start: remoteAddress(start + 0x1000n) });
    await mapCode(size + 0x1000);
    await expectLeftAlone();
  });

  it('for memory that can be written is dropped, and the memory stays', async () => {
    await leaveIntent({ size: 0x1000 });
    await mapCode(0x1000);
    expect(await ask(program, `writable ${start.toString(16)}`)).toBe('writable 0');
    await expectLeftAlone();
  });

  it('for an image in use is dropped, and the image stays', async () => {
    await apply(program.pid, [answers(workshop.library, 1, 43)], options());
    const [image] = inspect(program.pid);
    await leaveIntent({ start: image?.address ?? start });
    const patch = answers(workshop.library, 1, 43);
    expect(await apply(program.pid, [patch], options())).toMatchObject({ result: 'unchanged' });
    expect(existsSync(file())).toBe(false);
    expect(await ask(program, 'answer')).toBe('answer 43');
  });

  it('for a process that had this number before is dropped', async () => {
    const other = await workshop.start('none');
    await leaveIntent({ pid: other.pid });
    const text = readFileSync(file(other.pid), 'utf8').replace(`"pid":${other.pid}`, `"pid":${program.pid}`);
    renameSync(file(other.pid), file());
    writeFileSync(file(), text);
    await mapCode();
    await expectLeftAlone();
  });

  it('for a process that has executed a program since is dropped', async () => {
    await leaveIntent();
    program.writeLine('exec');
    await program.waitForLine(/^ready/);
    await mapCode();
    await expectLeftAlone();
  });

  it.each<[string, () => void]>([
    ['is garbage', () => writeFileSync(file(), '1\nnot what it should be')],
    ['is empty', () => writeFileSync(file(), '')],
    ['is cut off', () => writeFileSync(file(), readFileSync(file()).subarray(0, 200))],
    ['can be written by others', () => chmodSync(file(), 0o646)],
    ['belongs to another user', () => chownSync(file(), 65534, 65534)],
    ['is for another process', () => renameSync(file(), file(process.pid))],
    [
      'is a link to it',
      () => {
        renameSync(file(), join(directory, 'elsewhere'));
        symlinkSync(join(directory, 'elsewhere'), file());
      },
    ],
    [
      'is a pipe',
      () => {
        rmSync(file());
        execFileSync('mkfifo', [file()]);
      },
    ],
  ])('in a file that %s is not acted upon (R10)', async (_, damage) => {
    await leaveIntent();
    await mapCode();
    damage();
    await expectLeftAlone();
  });

  it('of a patcher that is at work makes the process busy', async () => {
    const other = await workshop.start('none');
    await leaveIntent({ pid: other.pid });
    await leaveIntent();
    await mapCode();
    const identity = /"identity":"(\w+)"/.exec(readFileSync(file(other.pid), 'utf8'))?.[1] ?? '';
    const writer = `"writer":{"pid":${other.pid},"identity":"${identity}"}`;
    writeFileSync(file(), readFileSync(file(), 'utf8').replace(/"writer":\{[^}]*\}/, writer));
    const before = readMappings(program.pid);
    const report = await unload(program.pid, options());
    expect(report).toMatchObject({ result: 'busy', error: { details: { patcher: other.pid } } });
    expect(readMappings(program.pid)).toEqual(before);
    await other.end();
    expect(await unload(program.pid, options())).toMatchObject({ result: 'unchanged' });
    expect(readMappings(program.pid).length).toBe(before.length - 1);
  });
});

describe('the directory of intents', () => {
  let workshop: Workshop;
  let program: Program;

  beforeAll(async () => {
    workshop = new Workshop();
    program = await workshop.start('none');
  });
  afterAll(() => workshop.close());

  const attempt = (intentDirectory: string) =>
    apply(program.pid, [answers(workshop.library, 1, 43)], { waitMs: 0, dryRun: false, intentDirectory });

  it('is made when it is missing', async () => {
    const directory = join(workshop.directory, 'a/b');
    expect(await attempt(directory)).toMatchObject({ result: 'applied' });
    expect(readdirSync(directory)).toEqual([]);
    expect(await unload(program.pid, { waitMs: 0, dryRun: false })).toMatchObject({ result: 'unloaded' });
  });

  it('is refused when others can write there (R10)', async () => {
    const directory = join(workshop.directory, 'open');
    mkdirSync(directory);
    chmodSync(directory, 0o777);
    const before = readMappings(program.pid);
    expect(await attempt(directory)).toMatchObject({ result: 'refused', error: { code: 'UNSAFE_MODE' } });
    expect(readMappings(program.pid)).toEqual(before);
  });

  it('that cannot be made keeps a process from being patched', async () => {
    const before = readMappings(program.pid);
    const report = await attempt('/dev/null/intents');
    expect(report).toMatchObject({ result: 'failed', error: { code: 'FILE_MISSING' } });
    expect(readMappings(program.pid)).toEqual(before);
  });

  it.each([
    ['is read-only', 'ro', 'failed The journal .* EROFS'],
    ['is on a full disk', 'size=4k', 'failed The journal .* ENOSPC'],
  ])('that %s keeps a process from being patched', (_, mountOptions, expected) => {
    const directory = join(workshop.directory, 'mounted');
    mkdirSync(directory, { recursive: true });
    const patch = join(workshop.directory, 'answers.kpatch');
    writeFileSync(patch, writePatch(handmadePatch(workshop.library, 1, { answer: returns(43) })));
    const before = readMappings(program.pid);
    const script = `mount -t tmpfs -o mode=755,${mountOptions} none "$1" && { cat /dev/zero > "$1/full"; exec "$2" "$3" apply "$4" "$5" "$1"; }`;
    const driver = join(import.meta.dirname, 'driver.mjs');
    const { stdout } = spawnSync(
      'unshare',
      ...[
        [
          '--mount',
          'sh',
          '-c',
          script,
          'sh',
          directory,
          process.execPath,
          driver,
          String(program.pid),
          patch,
        ],
      ],
      { encoding: 'utf8' },
    );
    expect(stdout).toMatch(new RegExp(expected));
    expect(readMappings(program.pid)).toEqual(before);
  });
});
