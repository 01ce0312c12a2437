// kcare.conf names the proxies, and the real command reaches a feed by http and https only through them.
import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it, onTestFinished } from 'vitest';
import { runKcarectl } from '../../fixtures/support/kcarectl.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { startServer } from '../../src/server/index.js';
import { proxy } from '../feed/forward-proxy.js';
import { AnswersWorld } from '../host/answers.js';

let world: AnswersWorld;
let host: LocalHost;

beforeAll(async () => {
  world = new AnswersWorld();
  host = await LocalHost.create(join(world.directory, 'host'), [
    world.writePatchFile(world.patch(1, 43), 'level-1'),
  ]);
});
afterEach(() => world.end());
afterAll(() => world.remove());

const configure = (lines: readonly string[]): void =>
  writeFileSync(join(host.root, 'etc/sysconfig/kcare/kcare.conf'), `${lines.join('\n')}\n`);

/** The feed behind TLS, with a certificate that only those trust who are told to. */
async function startTls(): Promise<{ readonly port: number; readonly certificate: string }> {
  const [key, certificate] = [join(world.directory, 'key.pem'), join(world.directory, 'cert.pem')];
  const names = 'subjectAltName=IP:127.0.0.1';
  const parameters = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const rest = [
    '-days',
    '2',
    '-subj',
    '/CN=kcare test',
    '-addext',
    names,
    '-keyout',
    key,
    '-out',
    certificate,
  ];
  execFileSync('openssl', [...parameters, ...rest], { stdio: 'ignore' });
  const server = createServer(
    { key: readFileSync(key), cert: readFileSync(certificate) },
    (request, response) => {
      try {
        response.end(readFileSync(join(host.feedDirectory, request.url ?? '/')));
      } catch {
        response.writeHead(404).end();
      }
    },
  );
  server.on('tlsClientError', () => undefined);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, certificate };
}

it('https by CONNECT, with the certificate of the server checked at this end', async () => {
  const { port, certificate } = await startTls();
  const seen: string[] = [];
  const server = `https://127.0.0.1:${port}/`;
  configure([`PATCH_SERVER=${server}`, `https_proxy=${await proxy(seen)}`]);
  const target = await world.start();
  const update = ['--lib-update', '--json', '--pid', `${target.pid}`];
  const untrusted = await runKcarectl(host.root, update);
  expect(untrusted.exitCode).toBe(1);
  expect(JSON.parse(untrusted.stdout)).toMatchObject({ error: { code: 'FEED_UNREACHABLE' } });
  expect(await world.answer(target)).toBe('answer 42');
  const trusted = await runKcarectl(host.root, update, { NODE_EXTRA_CA_CERTS: certificate });
  expect(trusted.exitCode, trusted.stdout).toBe(0);
  expect(await world.answer(target)).toBe('answer 43');
  expect(new Set(seen)).toEqual(new Set([`CONNECT 127.0.0.1:${port}`]));
  // Without its proxy, nothing goes around it.
  appendFileSync(join(host.root, 'etc/sysconfig/kcare/kcare.conf'), 'HTTPS_PROXY=http://127.0.0.1:1/\n');
  const dead = await runKcarectl(host.root, update, { NODE_EXTRA_CA_CERTS: certificate });
  expect(JSON.parse(dead.stdout)).toMatchObject({ error: { code: 'FEED_UNREACHABLE' } });
});

it('http in absolute form; the configuration wins over the environment', async () => {
  const server = await startServer({ feedDirectory: host.feedDirectory, port: 0 });
  onTestFinished(async () => await server.close(0));
  const seen: string[] = [];
  configure([`PATCH_SERVER=${server.url}`, `HTTP_PROXY=${await proxy(seen)}`]);
  const target = await world.start();
  const update = await runKcarectl(host.root, ['--lib-update', '--pid', `${target.pid}`], {
    http_proxy: 'http://127.0.0.1:1/',
    HTTP_PROXY: 'http://127.0.0.1:1/',
  });
  expect(update.exitCode, update.stderr).toBe(0);
  expect(await world.answer(target)).toBe('answer 43');
  expect(seen.length).toBeGreaterThan(3);
  expect(seen.every((line) => line.startsWith(`GET ${server.url}main/`))).toBe(true);
});
