// The engine on processes that have given up rights or live elsewhere: each is patched and unloaded without a trace.
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readMappings } from '../../fixtures/support/process-memory.js';
import type { Program } from '../../fixtures/support/program.js';
import { writePatch } from '../../src/patchfile/index.js';
import { handmadePatch, returns } from '../../fixtures/support/handmade.js';
import { apply } from '../../src/engine/index.js';
import { answers, ask, expectPatchable, patient, Workshop } from './conditions.js';

describe('a confined process', () => {
  let workshop: Workshop;

  beforeAll(() => {
    workshop = new Workshop();
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  const statusOf = (program: Program, field: string): string =>
    new RegExp(`^${field}:\\s+(.*)$`, 'm').exec(readFileSync(`/proc/${program.pid}/status`, 'utf8'))?.[1] ??
    '';

  async function expectDeathByViolation(program: Program): Promise<void> {
    program.writeLine('violate');
    await expect(program.waitForLine(/^violate/)).rejects.toThrow('ended before');
  }

  it('whose filter kills it for executable memory is patched, and the filter stays in force', async () => {
    const program = await workshop.start('seccomp-kill');
    await expectPatchable({ program, library: workshop.library });
    expect(statusOf(program, 'Seccomp')).toBe('2');
    await expectDeathByViolation(program);
  });

  it('whose filter answers EPERM to executable memory is patched, and the filter stays in force', async () => {
    const program = await workshop.start('seccomp-eperm');
    await expectPatchable({ program, library: workshop.library });
    expect(await ask(program, 'violate')).toBe('violate EPERM');
  });

  it('whose filter allows reading and writing only is patched, and the filter stays in force', async () => {
    const program = await workshop.start('seccomp-list');
    await expectPatchable({ program, library: workshop.library });
    await expectDeathByViolation(program);
  });

  it('in strict seccomp mode is patched, and stays in it', async () => {
    const program = await workshop.start('seccomp-strict');
    await expectPatchable({ program, library: workshop.library });
    expect(statusOf(program, 'Seccomp')).toBe('1');
    await expectDeathByViolation(program);
  });

  it('that denied itself gaining executable memory (PR_SET_MDWE) is patched, and still may not', async ({
    skip,
  }) => {
    const parameters = ['no-executable-gain', workshop.directory, workshop.library];
    const { stderr } = spawnSync(workshop.program, parameters, { encoding: 'utf8', input: '' });
    skip(stderr.includes('Invalid argument'), 'This kernel has no PR_SET_MDWE; Linux 6.3 and later have it.');
    const program = await workshop.start('no-executable-gain');
    await expectPatchable({ program, library: workshop.library });
    expect(await ask(program, 'violate')).toBe('violate EACCES');
  });

  it.each([
    ['is not dumpable (PR_SET_DUMPABLE)', 'undumpable', 'Uid', /^0/],
    ['may not gain privileges', 'no-new-privileges', 'NoNewPrivs', /^1$/],
    ['has dropped all capabilities', 'no-capabilities', 'CapPrm', /^0+$/],
    ['became another user', 'other-user', 'Uid', /^65534\s+65534\s+65534/],
  ])('that %s is patched', async (_, condition, field, value) => {
    const program = await workshop.start(condition);
    expect(statusOf(program, field)).toMatch(value);
    await expectPatchable({ program, library: workshop.library });
    expect(statusOf(program, field)).toMatch(value);
  });

  it('that was setuid and dropped root is patched', async () => {
    const setuid = join(workshop.directory, 'setuid');
    copyFileSync(workshop.program, setuid);
    chmodSync(setuid, 0o4755);
    const program = await workshop.run(
      'setpriv',
      ...['--reuid=65534', '--regid=65534', '--clear-groups', setuid, 'setuid-dropped'],
      ...[workshop.directory, workshop.library],
    );
    await program.waitForLine(/^ready/);
    expect(statusOf(program, 'Uid')).toMatch(/^65534\s+65534\s+65534/);
    await expectPatchable({ program, library: workshop.library });
  });

  it('in a mount namespace, with a library that exists only there, is patched', async () => {
    const path = join(workshop.directory, 'inside/libanswers.so');
    const program = await workshop.start('mount-namespace', path);
    expect(() => readFileSync(path)).toThrow('ENOENT');
    await expectPatchable({ program, library: workshop.library, path });
  });

  it('in a chroot, with a library that has another path there, is patched', async () => {
    const program = await workshop.start('chroot', '/libanswers.so');
    expect(() => readFileSync('/libanswers.so')).toThrow('ENOENT');
    await expectPatchable({ program, library: workshop.library });
  });

  it('in a user namespace is patched', async () => {
    const program = await workshop.start('user-namespace');
    expect(readlinkSync(`/proc/${program.pid}/ns/user`)).not.toBe(readlinkSync('/proc/self/ns/user'));
    await expectPatchable({ program, library: workshop.library });
  });

  it('in a pid namespace is patched', async () => {
    const program = await workshop.run(
      workshop.program,
      'pid-namespace',
      workshop.directory,
      workshop.library,
    );
    const pid = Number((await program.waitForLine(/^inside \d+/)).slice('inside '.length));
    await program.waitForLine(/^ready/);
    expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^NSpid:\s+\d+\s+1$/m);
    await expectPatchable({ program, pid, library: workshop.library });
  });

  it('without room for more memory fails with the reason, and nothing is written', async () => {
    const program = await workshop.start('no-address-space');
    const before = readMappings(program.pid);
    const report = await apply(program.pid, [answers(workshop.library, 1, 43)], patient);
    expect(report).toMatchObject({ result: 'failed', objects: [], error: { code: 'TARGET_MEMORY' } });
    expect(report.error?.message).toMatch(/could not map the image \(ENOMEM\)/);
    expect(readMappings(program.pid)).toEqual(before);
    expect(await ask(program, 'answer')).toBe('answer 42');
  });

  it('is refused, with the reason, to a patcher that may not suspend its filter', async () => {
    const program = await workshop.start('seccomp-kill');
    const before = readMappings(program.pid);
    const { stdout, stderr } = runWithout('sys_admin', program);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^(failed|refused) .*seccomp/);
    expect(readMappings(program.pid)).toEqual(before);
    expect(await ask(program, 'answer')).toBe('answer 42');
    await expectDeathByViolation(program);
  });

  it('of another user is refused, with the reason, to a patcher that may not trace', async () => {
    const program = await workshop.start('other-user');
    const before = readMappings(program.pid);
    const { stdout, stderr } = runWithout('sys_ptrace', program);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^failed .*may not be examined/);
    expect(readMappings(program.pid)).toEqual(before);
    expect(await ask(program, 'answer')).toBe('answer 42');
  });

  /** Applies in a process of its own that lacks a capability. */
  function runWithout(capability: string, program: Program) {
    const file = join(workshop.directory, 'answers.kpatch');
    writeFileSync(file, writePatch(handmadePatch(workshop.library, 1, { answer: returns(43) })));
    return spawnSync(
      'setpriv',
      [
        `--bounding-set=-${capability}`,
        process.execPath,
        join(import.meta.dirname, 'driver.mjs'),
        ...['apply', String(program.pid), file],
      ],
      { encoding: 'utf8' },
    );
  }
});
