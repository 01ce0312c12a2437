// A web server under load: fifty times patched and unpatched, and no client notices.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { HttpsLoad } from '../../fixtures/support/https-load.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { Nginx } from '../../fixtures/support/nginx.js';
import { libcryptoOf, opensslCases, opensslEnvironment } from '../../fixtures/support/openssl.js';
import { unpackNewest } from '../../fixtures/support/packages.js';
import { buildOpensslPatch, type BuiltPatch } from '../../fixtures/support/patches.js';
import { countChangedCodeBytes, readMappings } from '../../fixtures/support/process-memory.js';
import { parseUpdate } from '../../fixtures/support/reports.js';

const rounds = 50;
const workers = 4;

let directory: string;
let built: BuiltPatch;
let host: LocalHost;
let nginx: Nginx;

beforeAll(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-nginx-'));
  // The workers run as nobody and must reach the content below it.
  fs.chmodSync(directory, 0o755);
  built = await buildOpensslPatch(opensslCases);
  host = await LocalHost.create(fs.mkdtempSync(path.join(directory, 'host-')), [built.file]);
  nginx = await Nginx.start({
    unpackedNginx: await unpackNewest('nginx'),
    directory: fs.mkdtempSync(path.join(directory, 'nginx-')),
    workers,
    environment: opensslEnvironment(built.unpacked),
  });
});

afterAll(async () => {
  await nginx.end();
  fs.rmSync(directory, { recursive: true });
});

test(`${workers} workers are patched and unpatched ${rounds} times under HTTPS load without one failed request`, async () => {
  const pids = [nginx.masterPid, ...nginx.workerPids];
  const libcrypto = libcryptoOf(built.unpacked);
  const load = new HttpsLoad(nginx, 4);
  try {
    await load.waitForRequests(100);
    const mappings = pids.map((pid) => codeNames(pid));
    let report = '';
    for (let round = 1; round <= rounds; round++) {
      const updated = await host.kcarectl('--lib-update', '--pid', ...pids.map(String), '--json');
      expect(updated.exitCode, `round ${round}: ${updated.stdout}${updated.stderr}`).toBe(0);
      expect(parseUpdate(updated.stdout).map(({ pid, result }) => ({ pid, result }))).toEqual(
        pids.map((pid) => ({ pid, result: 'applied' })),
      );
      // Requests are served by patched processes before the patch goes again.
      await load.waitForRequests(20);
      for (const pid of pids) expect(countChangedCodeBytes(pid, libcrypto)).toBeGreaterThan(0);
      const unloaded = await host.kcarectl('--lib-unload', '--pid', ...pids.map(String));
      expect(unloaded.exitCode, `round ${round}: ${unloaded.stdout}${unloaded.stderr}`).toBe(0);
      report = unloaded.stdout;
      await load.waitForRequests(20);
    }
    expect(
      pids.map((pid) => codeNames(pid)),
      report,
    ).toEqual(mappings);
    for (const pid of pids) expect(countChangedCodeBytes(pid, libcrypto)).toBe(0);
  } finally {
    await load.stop();
  }
  expect(load.counts.failures).toEqual([]);
  expect(load.counts.succeeded).toBeGreaterThan(rounds * 40);
  expect(load.counts.handshakes).toBeGreaterThan(rounds);
  expect([nginx.masterPid, ...nginx.workerPids]).toEqual(pids);
  expect(nginx.errorLog).toBe('');
}, 900_000);

/** Executable mappings; a worker's other mappings change with its load. */
function codeNames(pid: number): string[] {
  return readMappings(pid).filter((line) => /^\S+ ..x/.test(line));
}
