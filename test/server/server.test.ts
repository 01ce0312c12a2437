// The feed server answers as caches and resuming clients need, and gives away nothing outside of the feed.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pino } from 'pino';
import { request } from 'undici';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import { type RunningServer, startServer } from '../../src/server/index.js';

const hash = 'ab'.repeat(32);
const directory = mkdtempSync(join(tmpdir(), 'kcare-server-'));
const lines: string[] = [];
let server: RunningServer;

beforeAll(async () => {
  const feed = join(directory, 'feed');
  for (const path of ['main/metadata', 'main/targets/patches', '.secret']) {
    mkdirSync(join(feed, path), { recursive: true });
  }
  writeFileSync(join(directory, 'outside'), 'outside');
  for (const path of [
    'main/metadata/timestamp.json',
    'main/metadata/12.snapshot.json',
    'main/metadata/1.root.json.asc',
    `main/targets/patches/${hash}.aa-1.kpatch`,
    `main/targets/${hash}.feed.json`,
    'kcare-feed.asc',
    '.secret/key',
    'main/.hidden',
  ]) {
    writeFileSync(join(feed, path), '0123456789');
  }
  symlinkSync('/nowhere', join(feed, 'main', 'dangling'));
  const log = pino(
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        lines.push(chunk.toString());
        done();
      },
    }),
  );
  server = await startServer({ feedDirectory: feed, port: 0, log });
});

afterAll(async () => {
  await server.close(0);
  rmSync(directory, { recursive: true, force: true });
});

async function get(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> {
  return await fetch(`${server.url}${path}`, { method, headers });
}

/** Sends a request line as it stands, which fetch would tidy. */
async function raw(line: string): Promise<string> {
  const { hostname, port } = new URL(server.url);
  const socket = createConnection(Number(port), hostname);
  socket.write(`${line}\r\nhost: x\r\nconnection: close\r\n\r\n`);
  return await text(socket);
}

describe('the feed server', () => {
  it.each([
    ['main/metadata/timestamp.json', 'public, max-age=30'],
    ['kcare-feed.asc', 'public, max-age=30'],
    ['main/metadata/12.snapshot.json', 'public, max-age=31536000, immutable'],
    ['main/metadata/1.root.json.asc', 'public, max-age=31536000, immutable'],
    [`main/targets/${hash}.feed.json`, 'public, max-age=31536000, immutable'],
    [`main/targets/patches/${hash}.aa-1.kpatch`, 'public, max-age=31536000, immutable'],
  ])('serves %s with the right lifetime', async (path, expected) => {
    const response = await get(path);
    expect(response.status).toBe(200);
    expect(response.headers.get('cache-control')).toBe(expected);
    expect(await response.text()).toBe('0123456789');
  });

  it('answers HEAD without a body', async () => {
    const response = await get('main/metadata/timestamp.json', {}, 'HEAD');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-length')).toBe('10');
    expect(await response.text()).toBe('');
  });

  it('answers conditional requests with 304', async () => {
    const first = await get('main/metadata/timestamp.json');
    const etag = first.headers.get('etag') ?? '';
    expect(etag).not.toBe('');
    const since = first.headers.get('last-modified') ?? '';
    // fetch adds `cache-control: no-cache` to conditional requests, which rightly gets the whole file.
    const status = async (headers: Record<string, string>): Promise<number> => {
      const { statusCode, body } = await request(`${server.url}main/metadata/timestamp.json`, { headers });
      await body.dump();
      return statusCode;
    };
    expect(await status({ 'if-none-match': etag })).toBe(304);
    expect(await status({ 'if-modified-since': since })).toBe(304);
    expect(await status({ 'if-none-match': '"other"' })).toBe(200);
    expect(await status({ 'if-match': '"other"' })).toBe(412);
  });

  it('serves ranges, and refuses those outside of the file', async () => {
    const part = await get(`main/targets/${hash}.feed.json`, { range: 'bytes=2-4' });
    expect(part.status).toBe(206);
    expect(part.headers.get('content-range')).toBe('bytes 2-4/10');
    expect(await part.text()).toBe('234');
    const beyond = await get(`main/targets/${hash}.feed.json`, { range: 'bytes=100-' });
    expect(beyond.status).toBe(416);
    expect(beyond.headers.get('content-range')).toBe('bytes */10');
    expect(beyond.headers.get('cache-control')).toBe('no-store');
  });

  it.each([
    '',
    'main',
    'main/',
    'main/metadata/',
    '.secret/key',
    'main/.hidden',
    'main/nothing',
    'main/dangling',
  ])('says 404 to /%s: no listings, no hidden files', async (path) => {
    const response = await get(path);
    expect(response.status).toBe(404);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(await response.text()).toBe('404\n');
  });

  it.each([
    'GET /../outside HTTP/1.1',
    'GET /main/../../outside HTTP/1.1',
    'GET /%2e%2e/outside HTTP/1.1',
    'GET /main/%2e%2e%2f%2e%2e%2foutside HTTP/1.1',
    'GET /..%5coutside HTTP/1.1',
    'GET //etc/passwd HTTP/1.1',
    'GET /main/%00 HTTP/1.1',
    'GET /%zz HTTP/1.1',
    'GET http://x/../outside HTTP/1.1',
    'GET * HTTP/1.1',
    'NONSENSE',
  ])('lets nobody out of the feed: %s', async (line) => {
    const answer = await raw(line);
    expect(answer).not.toContain('outside');
    expect(answer).not.toContain('root:');
    expect(answer).not.toMatch(/^HTTP\/1.1 (2|5)/);
    expect((await get('main/metadata/timestamp.json')).status).toBe(200);
  });

  it.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('refuses %s', async (method) => {
    const response = await get('main/metadata/timestamp.json', {}, method);
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET, HEAD');
  });

  it('writes an access log', async () => {
    lines.length = 0;
    await (await get('main/nothing')).text();
    await expect.poll(() => lines.length).toBe(1);
    const entry = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
    expect(entry).toMatchObject({ method: 'GET', url: '/main/nothing', status: 404, complete: true });
  });

  it('says why it cannot start', async () => {
    await expect(startServer({ feedDirectory: join(directory, 'none') })).rejects.toMatchObject({
      code: 'FILE_MISSING',
    });
    const port = Number(new URL(server.url).port);
    await expect(startServer({ feedDirectory: directory, port })).rejects.toBeInstanceOf(KcareError);
    const six = await startServer({ feedDirectory: directory, host: '::1', port: 0 });
    expect((await fetch(`${six.url}outside`)).status).toBe(200);
    await six.close();
  });
});
