// kcare-check on this host: what it says of the feed, of rights and of the kernel, against what is really so.
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { buildOpensslPatch } from '../../fixtures/support/patches.js';
import { verdict, type Check, type Coverage } from '../../src/checker/coverage.js';
import { asNobody, CheckerWorld, runCommand } from './world.js';

async function check(
  root: string,
  before: readonly string[] = [],
  more: readonly string[] = [],
): Promise<Coverage & { exitCode: number }> {
  const { exitCode, stdout } = await runCommand('kcare-check', ['--root', root, '--json', ...more], before);
  return { ...(JSON.parse(stdout) as Coverage), exitCode };
}

const stateOf = ({ checks }: Coverage, name: string): string | undefined =>
  checks.find((one) => one.name === name)?.state;

it('says that libraries are not covered without a patch server and keys, and what to do', async () => {
  const world = new CheckerWorld();
  const coverage = await check(world.sub('root'));
  expect(coverage.exitCode).toBe(6);
  expect(coverage.libraries).toBe('not-covered');
  expect([stateOf(coverage, 'patch-server'), stateOf(coverage, 'keys')]).toEqual([
    'not-covered',
    'not-covered',
  ]);
  const { stdout } = await runCommand('kcare-check', ['--root', world.sub('root')]);
  expect(stdout).toContain('kcarectl --import-key');
  expect(fs.readdirSync(world.sub('root'))).toEqual([]);
});

it('asks the patch server, and believes neither one that is away nor one that was not asked', async () => {
  const world = new CheckerWorld();
  const built = await buildOpensslPatch(['CVE-2026-22796']);
  const host = await LocalHost.create(world.sub('host'), [built.file]);
  const there = await check(host.root);
  expect(stateOf(there, 'patch-server')).toBe('covered');
  expect(stateOf(there, 'keys')).toBe('covered');
  expect(stateOf(there, 'ptrace')).toBe('covered');
  expect([0, 4]).toContain(there.exitCode);
  expect(stateOf(await check(host.root, [], ['--offline']), 'patch-server')).toBe('unknown');
  fs.renameSync(host.feedDirectory, `${host.feedDirectory}.away`);
  const away = await check(host.root);
  expect(stateOf(away, 'patch-server')).toBe('not-covered');
  expect(away.exitCode).toBe(6);
});

it('does not claim to know what another user may not see', async () => {
  const world = new CheckerWorld();
  const coverage = await check(world.sub('root'), asNobody(), ['--offline']);
  expect(stateOf(coverage, 'rights')).toBe('unknown');
  expect(coverage.libraries).not.toBe('covered');
});

it('says of the kernel what it offers', async () => {
  const coverage = await check(new CheckerWorld().sub('root'), [], ['--offline']);
  const offers = fs.existsSync('/sys/kernel/livepatch');
  expect(stateOf(coverage, 'livepatch')).toBe(offers ? 'covered' : 'not-covered');
  if (!offers) expect(coverage.kernel).toBe('not-covered');
});

it.each([
  [['covered', 'note'], 'covered'],
  [['covered', 'unknown'], 'unknown'],
  [['unknown', 'not-covered', 'covered'], 'not-covered'],
  [['note'], 'unknown'],
  [[], 'unknown'],
] as const)('of %j makes %s', (states, expected) => {
  const checks = states.map((state, index): Check => ({
    area: 'kernel',
    name: `${index}`,
    state,
    finding: '',
  }));
  expect(verdict(checks, 'kernel')).toBe(expected);
});

it('wrong options are refused', async () => {
  expect((await runCommand('kcare-check', ['--nonsense'])).exitCode).toBe(64);
  expect((await runCommand('kcare-check', ['--root', 'here'])).exitCode).toBe(64);
});
