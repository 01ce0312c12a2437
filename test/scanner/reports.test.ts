// OpenVEX and metrics about real processes, checked by the rules of their formats and by a parser that others wrote.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Inhabitant } from '../../fixtures/support/small-host.js';
import { packageRoot } from '../../src/base/package-root.js';
import type { VexDocument, VexStatement } from '../../src/scanner/index.js';
import { AnswersHost, fixing } from './answers-host.js';

const cve = 'CVE-2026-0001';
let host: AnswersHost;
const running: Inhabitant[] = [];

beforeAll(async () => {
  host = await AnswersHost.create((world) => [fixing(world.patch(1, 43), cve)]);
  // Fetches the feed.
  await host.kcarectl('--lib-update');
});
afterEach(async () => {
  for (const inhabitant of running.splice(0)) await host.small.stop(inhabitant);
});
afterAll(() => host.remove());

async function start(...parameters: Parameters<AnswersHost['start']>): Promise<Inhabitant> {
  const inhabitant = await host.start(...parameters);
  running.push(inhabitant);
  return inhabitant;
}

async function vex(): Promise<VexDocument> {
  const { exitCode, stdout, stderr } = await host.kcarectl('--vex');
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  const document = JSON.parse(stdout) as VexDocument;
  expectOpenVex(document as unknown as Record<string, unknown>);
  return document;
}

const iso = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

/** The rules of OpenVEX v0.2.0: required fields, their types, and what each status demands; unknown fields are not allowed. */
function expectOpenVex(document: Record<string, unknown>): void {
  const fields = [
    '@context',
    '@id',
    'author',
    'role',
    'timestamp',
    'last_updated',
    'version',
    'tooling',
    'statements',
  ];
  expect(Object.keys(document).filter((key) => !fields.includes(key))).toEqual([]);
  expect(document['@context']).toMatch(/^https:\/\/openvex\.dev\/ns(\/v[\d.]+)?$/);
  expect(URL.canParse(document['@id'] as string)).toBe(true);
  expect(document['author']).toMatch(/./);
  expect(document['timestamp']).toMatch(iso);
  expect(Number.isInteger(document['version']) && (document['version'] as number) >= 1).toBe(true);
  const known = [
    ...['@id', 'version', 'vulnerability', 'timestamp', 'last_updated', 'products', 'status', 'supplier'],
    ...[
      'status_notes',
      'justification',
      'impact_statement',
      'action_statement',
      'action_statement_timestamp',
    ],
  ];
  for (const statement of document['statements'] as Record<string, unknown>[]) {
    expect(Object.keys(statement).filter((key) => !known.includes(key))).toEqual([]);
    const vulnerability = statement['vulnerability'] as Record<string, unknown>;
    expect(
      Object.keys(vulnerability).filter((key) => !['@id', 'name', 'description', 'aliases'].includes(key)),
    ).toEqual([]);
    expect(vulnerability['name']).toMatch(/./);
    if (vulnerability['@id'] !== undefined) expect(URL.canParse(vulnerability['@id'] as string)).toBe(true);
    expect(statement['timestamp']).toMatch(iso);
    expect(['not_affected', 'affected', 'fixed', 'under_investigation']).toContain(statement['status']);
    // An affected product needs advice.
    expect(typeof statement['action_statement'] === 'string').toBe(statement['status'] === 'affected');
    const products = statement['products'] as Record<string, unknown>[];
    expect(products.length).toBeGreaterThan(0);
    for (const product of products) {
      expect(product['@id']).toMatch(/^pkg:[a-z]+\/[^\s]+$/);
      expect(product['identifiers']).toEqual({ purl: product['@id'] });
    }
  }
}

const brief = ({ statements }: VexDocument): (readonly string[])[] =>
  statements.map(({ vulnerability, products: [product], status }: VexStatement) => [
    vulnerability.name,
    product['@id'],
    status,
  ]);

describe('kcarectl --vex', () => {
  const product = 'pkg:deb/debian/libanswers@1?arch=amd64';

  it('says affected, then fixed, then affected, with the same id for the same state', async () => {
    expect((await vex()).statements).toEqual([]);
    const { pid } = await start();
    const before = await vex();
    expect(brief(before)).toEqual([[cve, product, 'affected']]);
    expect(before.statements[0]?.status_notes).toContain(`Process ${pid} (target)`);
    await host.kcarectl('--lib-update');
    const fixed = await vex();
    expect(brief(fixed)).toEqual([[cve, product, 'fixed']]);
    expect(fixed['@id']).not.toBe(before['@id']);
    const again = await vex();
    expect(again['@id']).toBe(fixed['@id']);
    expect(again.timestamp > fixed.timestamp).toBe(true);
    await host.kcarectl('--lib-unload');
    const after = await vex();
    expect(brief(after)).toEqual([[cve, product, 'affected']]);
    expect(after['@id']).toBe(before['@id']);
  });

  it('names a build of which nothing is known as under investigation', async () => {
    await start();
    await start(undefined, { LD_LIBRARY_PATH: host.otherBuild() });
    await host.kcarectl('--lib-update');
    expect(brief(await vex())).toEqual([
      [cve, product, 'fixed'],
      [
        cve,
        expect.stringMatching(/^pkg:generic\/libanswers\.so\?build_id=[0-9a-f]{40}$/),
        'under_investigation',
      ],
    ]);
  });

  it('writes a file as a whole or not at all', async () => {
    const directory = join(host.world.directory, 'published');
    const file = join(directory, 'vex.json');
    expect((await host.kcarectl('--vex', '--output', file)).exitCode).toBe(0);
    expectOpenVex(JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>);
    expect(readdirSync(directory)).toEqual(['vex.json']);
    expect((await host.kcarectl('--vex', '--output', join(file, 'below'))).exitCode).toBe(1);
    expect(await host.kcarectl('--vex', '--output', directory)).toMatchObject({
      exitCode: 64,
      stderr: expect.stringContaining('directory') as string,
    });
  });

  it('never replaces a device or a pipe by a file, nor follows a link', async () => {
    const device = join(host.world.directory, 'null');
    execFileSync('mknod', [device, 'c', '1', '3']);
    expect((await host.kcarectl('--vex', '--output', device)).exitCode).toBe(0);
    expect(lstatSync(device).isCharacterDevice()).toBe(true);
    const shared = mkdtempSync('/dev/shm/kcare-test-');
    const [link, kept] = [join(shared, 'link'), join(shared, 'kept')];
    writeFileSync(kept, 'as it was');
    symlinkSync(kept, link);
    expect((await host.kcarectl('--vex', '--output', link)).exitCode).toBe(0);
    expect([lstatSync(link).isFile(), readFileSync(kept, 'utf8')]).toEqual([true, 'as it was']);
    rmSync(shared, { recursive: true });
    const pipe = join(host.world.directory, 'pipe');
    const script = 'mkfifo "$0" && { cat "$0" & } && "$@" --vex --output "$0" && wait';
    const kcarectl = [join(packageRoot(), 'bin', 'kcarectl'), '--root', host.agent.root];
    const { stdout } = await host.small.run('sh', ['-c', script, pipe, ...kcarectl]);
    expectOpenVex(JSON.parse(stdout) as Record<string, unknown>);
    expect(lstatSync(pipe).isFIFO()).toBe(true);
    const printed = await host.small.run('sh', [
      '-c',
      '"$@" --vex --output /dev/stdout | cat',
      'sh',
      ...kcarectl,
    ]);
    expectOpenVex(JSON.parse(printed.stdout) as Record<string, unknown>);
  });
});

interface Family {
  readonly name: string;
  readonly type: string;
  readonly samples: readonly { readonly labels: Record<string, string>; readonly value: number }[];
}

/** By the parser of the Prometheus project's own client. */
function parse(text: string): Family[] {
  const program = [
    'import sys, json',
    'from prometheus_client.parser import text_string_to_metric_families as parse',
    'print(json.dumps([{"name": f.name, "type": f.type, "samples": [{"labels": s.labels, "value": s.value} for s in f.samples]} for f in parse(sys.stdin.read())]))',
  ].join('\n');
  return JSON.parse(
    execFileSync('/usr/bin/python3', ['-c', program], { input: text, encoding: 'utf8' }),
  ) as Family[];
}

describe('kcarectl --metrics', () => {
  const valueOf = (
    families: readonly Family[],
    name: string,
    labels: Record<string, string> = {},
  ): number | undefined =>
    families
      .find((family) => family.name === name)
      ?.samples.find((sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
      ?.value;

  it('counts processes, levels and vulnerabilities as they are, before and after', async () => {
    await start();
    await start('gdb');
    await host.kcarectl('--lib-unload');
    const before = parse((await host.kcarectl('--metrics')).stdout);
    expect(new Set(before.map(({ type }) => type))).toEqual(new Set(['gauge']));
    expect(valueOf(before, 'kcare_processes', { state: 'pending' })).toBe(1);
    expect(valueOf(before, 'kcare_processes', { state: 'excluded' })).toBe(1);
    expect(valueOf(before, 'kcare_object_processes', { object: 'libanswers.so', level: '0' })).toBe(2);
    expect(valueOf(before, 'kcare_object_available_level', { object: 'libanswers.so' })).toBe(1);
    expect(valueOf(before, 'kcare_cves', { status: 'fixed' })).toBe(0);
    await host.kcarectl('--lib-update');
    const { stdout, exitCode, stderr } = await host.kcarectl('--metrics');
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    const after = parse(stdout);
    expect(valueOf(after, 'kcare_processes', { state: 'patched' })).toBe(1);
    expect(valueOf(after, 'kcare_processes', { state: 'pending' })).toBe(0);
    expect(valueOf(after, 'kcare_object_processes', { level: '1' })).toBe(1);
    expect(valueOf(after, 'kcare_object_processes', { level: '0' })).toBe(1);
    expect(valueOf(after, 'kcare_cves', { status: 'left_behind' })).toBe(1);
    expect(valueOf(after, 'kcare_images_kept')).toBe(0);
    expect(valueOf(after, 'kcare_feed_info')).toBe(1);
    expect(valueOf(after, 'kcare_feed_metadata_age_seconds')).toBeGreaterThanOrEqual(0);
    expect(valueOf(after, 'kcare_feed_metadata_expiry_timestamp_seconds')).toBeGreaterThan(Date.now() / 1000);
    expect(valueOf(after, 'kcare_last_run_timestamp_seconds', { command: '--lib-update' })).toBeGreaterThan(
      0,
    );
    expect(valueOf(after, 'kcare_last_run_exit_code')).toBe(0);
    expect(valueOf(after, 'kcare_last_run_processes', { outcome: 'applied' })).toBe(1);
    expect(valueOf(after, 'kcare_last_run_pause_seconds', { threads: 'any' })).toBeGreaterThan(0);
    expect(valueOf(after, 'kcare_build_info', {})).toBe(1);
    // Every family has help, and every one the same numbers as JSON.
    const { metrics } = JSON.parse((await host.kcarectl('--metrics', '--json')).stdout) as {
      metrics: { name: string; help: string; samples: unknown[] }[];
    };
    expect(metrics.filter(({ samples }) => samples.length > 0).map(({ name }) => name)).toEqual(
      after.map(({ name }) => name),
    );
    for (const { help } of metrics) expect(help).toMatch(/\.$/);
  });

  it('writes the file of a textfile collector as a whole', async () => {
    const file = join(host.world.directory, 'collector', 'kcare.prom');
    expect(await host.kcarectl('--metrics', '--output', file)).toEqual({
      exitCode: 0,
      stdout: '',
      stderr: '',
    });
    expect(parse(readFileSync(file, 'utf8')).map(({ name }) => name)).toContain('kcare_processes');
    expect(statSync(file).mode & 0o777).toBe(0o644);
    expect(readdirSync(join(file, '..'))).toEqual(['kcare.prom']);
    expect(existsSync(`${file}.tmp`)).toBe(false);
  });
});
