// Feeds through real proxies on loopback: absolute-form requests for http, CONNECT for https.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startServer } from '../../src/server/index.js';
import { World, buildIdA, loopback, refusal } from './world.js';

/** A forward proxy that writes down what it was asked for. */
async function proxy(seen: string[]): Promise<string> {
  return await loopback(
    (incoming, answer) => {
      seen.push(`${incoming.method ?? ''} ${incoming.url ?? ''}`);
      if (!/^http:/.test(incoming.url ?? '')) {
        answer.writeHead(400).end();
        return;
      }
      const onward = request(
        incoming.url ?? '',
        { method: incoming.method, headers: incoming.headers },
        (reply) => {
          answer.writeHead(reply.statusCode ?? 502, reply.headers);
          reply.pipe(answer);
        },
      );
      onward.on('error', () => answer.writeHead(502).end());
      onward.end();
    },
    (server) =>
      server.on('connect', (incoming, socket) => {
        seen.push(`CONNECT ${incoming.url ?? ''}`);
        const [host = '', port = ''] = (incoming.url ?? '').split(':');
        const onward = connect(Number(port), host, () => {
          socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
          onward.pipe(socket).pipe(onward);
        });
        onward.on('error', () => socket.destroy());
        socket.on('error', () => onward.destroy());
        socket.on('close', () => onward.destroy());
      }),
  );
}

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
