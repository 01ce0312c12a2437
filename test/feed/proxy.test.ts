// Feeds through real proxies on loopback: absolute-form requests for http, CONNECT for https.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startServer } from '../../src/server/index.js';
import { proxy } from './forward-proxy.js';
import { World, buildIdA, loopback, refusal } from './world.js';

describe('a host behind a proxy', () => {
  it('reads a feed over http through it, in absolute form', async () => {
    const world = new World();
    await world.start();
    const server = await startServer({ feedDirectory: world.feed, port: 0 });
    onTestFinished(async () => await server.close(0));
    const seen: string[] = [];
    const state = await world.update({ server: server.url, proxy: { http: await proxy(seen) } });
    expect((await state.patchFor(buildIdA))?.level).toBe(1);
    expect(seen).toContain(`GET ${server.url}main/metadata/timestamp.json`);
    expect(seen.every((line) => line.startsWith(`GET ${server.url}main/`))).toBe(true);
  });

  it('takes the proxy from the environment', async () => {
    const world = new World();
    await world.start();
    const seen: string[] = [];
    process.env['http_proxy'] = await proxy(seen);
    onTestFinished(() => void Reflect.deleteProperty(process.env, 'http_proxy'));
    const server = await startServer({ feedDirectory: world.feed, port: 0 });
    onTestFinished(async () => await server.close(0));
    expect((await world.update({ server: server.url })).patches).toHaveLength(2);
    expect(seen.length).toBeGreaterThan(4);
  });

  it('is told when the proxy cannot be reached or refuses', async () => {
    const world = new World();
    await world.start();
    const server = await startServer({ feedDirectory: world.feed, port: 0 });
    onTestFinished(async () => await server.close(0));
    const dead = world.update({ server: server.url, proxy: { http: 'http://127.0.0.1:1/' } });
    expect(await refusal(dead)).toBe('FEED_UNREACHABLE');
    const forbidding = await loopback((_request, response) => void response.writeHead(407).end());
    expect(await refusal(world.update({ server: server.url, proxy: { http: forbidding } }))).toBe(
      'FEED_UNREACHABLE',
    );
  });

  it('asks it to CONNECT for https, and refuses a server whose certificate nobody vouches for', async () => {
    const world = new World();
    await world.start();
    const [key, cert] = [join(world.directory, 'key.pem'), join(world.directory, 'cert.pem')];
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '2',
        '-subj',
        '/CN=localhost',
        '-keyout',
        key,
        '-out',
        cert,
      ],
      { stdio: 'ignore' },
    );
    let requests = 0;
    const server = createServer(
      { key: readFileSync(key), cert: readFileSync(cert) },
      (_request, response) => {
        requests += 1;
        response.end('{}');
      },
    );
    server.on('tlsClientError', () => undefined);
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    onTestFinished(() => void server.close());
    const port = (server.address() as AddressInfo).port;
    const seen: string[] = [];
    const https = await proxy(seen);
    expect(await refusal(world.update({ server: `https://127.0.0.1:${port}/`, proxy: { https } }))).toBe(
      'FEED_UNREACHABLE',
    );
    expect(seen).toEqual([`CONNECT 127.0.0.1:${port}`]);
    expect(requests).toBe(0);
  });
});
