// OVAL definitions in the hands of the real oscap: schema-valid, and the right verdict before, while and after patching.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { libcryptoOf, opensslCases, opensslEnvironment } from '../../fixtures/support/openssl.js';
import { buildOpensslPatch, type BuiltPatch } from '../../fixtures/support/patches.js';
import { SmallHost, untilMapped, type Inhabitant } from '../../fixtures/support/small-host.js';
import { packageRoot } from '../../src/base/package-root.js';
import { ovalDocument, type FixedPackage } from '../../src/scanner/index.js';
import { startServer } from '../../src/server/index.js';

let directory: string;
let built: BuiltPatch;
let agent: LocalHost;
let small: SmallHost;
let definitions: string;

const kcareBuild = join(packageRoot(), 'bin', 'kcare-build');

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-oval-'));
  built = await buildOpensslPatch(opensslCases);
  agent = await LocalHost.create(directory, [built.file]);
  execFileSync(kcareBuild, ['oval', '--feed', agent.feedDirectory, built.file]);
  definitions = join(agent.feedDirectory, 'oval', 'com.kernelcare.debian.12.xml');
  small = await SmallHost.create();
  const { root } = agent;
  install(built.runs);
  mkdirSync(join(root, 'var/cache/kcare'), { recursive: true });
  await small.bind(join(root, 'var/cache'), '/var/cache');
  await small.bind(join(root, 'var/lib/dpkg'), '/var/lib/dpkg');
  await startOpenssl();
});
afterAll(async () => {
  await small.end();
  rmSync(directory, { recursive: true });
});

/** One that waits for its standard input, with the archive's old library. */
async function startOpenssl(): Promise<Inhabitant> {
  const inhabitant = await small.start('openssl', ['dgst'], {
    environment: opensslEnvironment(built.unpacked),
  });
  await untilMapped(inhabitant.outerPid, libcryptoOf(built.unpacked));
  return inhabitant;
}

/** The host has version `version` of libssl3, as dpkg notes it. */
function install(version: string): void {
  const state = join(agent.root, 'var/lib/dpkg');
  mkdirSync(state, { recursive: true });
  const fields = {
    Package: 'libssl3',
    Status: 'install ok installed',
    Priority: 'optional',
    Section: 'libs',
    Maintainer: 'nobody',
    Architecture: 'amd64',
    'Multi-Arch': 'same',
    Source: 'openssl',
    Version: version,
    Description: 'Secure Sockets Layer toolkit',
  };
  const lines = Object.entries(fields).map(([key, value]) => `${key}: ${value}\n`);
  writeFileSync(join(state, 'status'), `${lines.join('')}\n`);
}

const kcarectl = (...parameters: readonly string[]): ReturnType<SmallHost['run']> =>
  small.run(join(packageRoot(), 'bin', 'kcarectl'), ['--root', agent.root, ...parameters]);

/** The vulnerabilities that oscap finds on the host: those whose definition is true. */
async function vulnerable(file = definitions): Promise<string[]> {
  const { exitCode, stdout, stderr } = await small.run('oscap', ['oval', 'eval', file]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  const answers = [...stdout.matchAll(/^Definition oval:com\.kernelcare:def:(\d{4})0*(\d+): (\w+)$/gm)];
  expect(answers.map(([, , , answer]) => answer).filter((one) => one !== 'true' && one !== 'false')).toEqual(
    [],
  );
  expect(answers).toHaveLength(opensslCases.length);
  return answers
    .flatMap(([, year, number, answer]) => (answer === 'true' ? [`CVE-${year}-${number}`] : []))
    .sort();
}

const validate = (file: string): string =>
  execFileSync('oscap', ['oval', 'validate', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

describe('OVAL definitions', () => {
  it('are valid by the schema that oscap has', () => {
    expect(validate(definitions)).not.toMatch(/error|invalid/i);
  });

  it('give the right verdict before and after an update and after an unload', async () => {
    const all = [...opensslCases].sort();
    expect(await vulnerable()).toEqual(all);
    const updated = await kcarectl('--lib-update');
    expect(updated, updated.stderr).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await vulnerable()).toEqual([]);
    expect(await kcarectl('--lib-unload')).toMatchObject({ exitCode: 0 });
    expect(await vulnerable()).toEqual(all);
  });

  it('call the host vulnerable again as soon as one more process starts that is not patched', async () => {
    await kcarectl('--lib-update');
    expect(await vulnerable()).toEqual([]);
    const other = await startOpenssl();
    await kcarectl('--lib-cvelist');
    expect(await vulnerable()).toEqual([...opensslCases].sort());
    await small.stop(other);
    await kcarectl('--lib-unload');
    expect(await vulnerable()).toHaveLength(opensslCases.length);
  });

  it('call nothing vulnerable where the fixed package is installed, by the order of Debian versions', async () => {
    install(built.fixed);
    expect(await vulnerable()).toEqual([]);
    install('3.0.9-1');
    expect(await vulnerable()).toHaveLength(opensslCases.length);
    install(built.runs);
  });

  it('say the same when the host makes them from its own feed', async () => {
    const own = join(directory, 'own.xml');
    // A file that cannot be written leaves no part of it.
    expect((await kcarectl('--oval', '--output', join(definitions, 'below-a-file'))).exitCode).toBe(1);
    expect(await kcarectl('--oval', '--output', own)).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    validate(own);
    expect(await vulnerable(own)).toEqual([...opensslCases].sort());
    expect((await kcarectl('--oval')).stdout).toContain('<definition id="oval:com.kernelcare:def:2025');
  });

  it('are served beside the feed', async () => {
    const server = await startServer({ feedDirectory: agent.feedDirectory, port: 0 });
    try {
      const answer = await fetch(`${server.url}oval/com.kernelcare.debian.12.xml`);
      expect(answer.status).toBe(200);
      expect(answer.headers.get('content-type')).toContain('xml');
      expect(await answer.text()).toBe(readFileSync(definitions, 'utf8'));
    } finally {
      await server.close();
    }
  });

  it('stay valid whatever a patch says of itself', () => {
    const fixes: FixedPackage[] = [
      {
        package: 'lib"x<&>',
        fixedVersion: '1:2.0~rc1+dfsg-3',
        cves: [
          {
            id: 'CVE-2026-0001',
            description: '</description>\u0000\ud800 "x" & \u{1f600}',
            score: '<9>',
            url: 'a"b&c',
          },
          { id: 'CVE-2026-12345678', description: '', score: '', url: '' },
          { id: 'KCARE-1', description: '', score: '', url: '' },
        ],
      },
      { package: '', fixedVersion: '1', cves: [{ id: 'CVE-2026-7', description: '', score: '', url: '' }] },
    ];
    const options = {
      distribution: 'debian',
      distributionVersion: '12',
      timestamp: new Date(),
      productVersion: '1',
    };
    const { xml, definitions: count, leftOut } = ovalDocument(fixes, options);
    expect(count).toBe(2);
    expect(leftOut).toEqual(['KCARE-1', 'CVE-2026-7']);
    const file = join(directory, 'odd.xml');
    writeFileSync(file, xml);
    validate(file);
    const empty = ovalDocument([], options);
    writeFileSync(file, empty.xml);
    validate(file);
  });
});
