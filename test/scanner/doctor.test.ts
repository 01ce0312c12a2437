// kcarectl --doctor: a report for support, sent to a real server or left on the host, and no secret in it.
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runKcarectl } from '../../fixtures/support/kcarectl.js';
import { startServer, type RunningServer } from '../../src/server/index.js';
import { AnswersHost, fixing } from './answers-host.js';

let directory: string;
let host: AnswersHost;
const servers: RunningServer[] = [];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-doctor-'));
  host = await AnswersHost.create((world) => [fixing(world.patch(1, 43), 'CVE-2026-0001')]);
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close(0);
});
afterAll(async () => {
  await host.remove();
  rmSync(directory, { recursive: true });
});

const reports = (): string => join(directory, 'reports');

async function serve(limits: Parameters<typeof startServer>[0]['reportLimits'] = {}): Promise<RunningServer> {
  const feedDirectory = join(directory, 'served');
  mkdirSync(feedDirectory, { recursive: true });
  const server = await startServer({
    feedDirectory,
    port: 0,
    reportDirectory: reports(),
    reportLimits: limits,
  });
  servers.push(server);
  return server;
}

const configFile = (): string => join(host.agent.root, 'etc/sysconfig/kcare/kcare.conf');
const keptFile = (): string => join(host.agent.root, 'root/cl-report');

function configure(...lines: readonly string[]): void {
  writeFileSync(configFile(), [`PATCH_SERVER=${host.agent.feedDirectory}`, ...lines, ''].join('\n'));
}

describe('kcarectl --doctor', () => {
  it('leaves the report on the host, for root only, when no server is configured', async () => {
    configure();
    const { exitCode, stdout } = await host.kcarectl('--doctor');
    expect({ exitCode, stdout }).toEqual({
      exitCode: 0,
      stdout: `Generating report...\nThe report is in ${keptFile()}; please send it to KernelCare Support Team.\n`,
    });
    expect(statSync(keptFile()).mode & 0o777).toBe(0o600);
  });

  it('tells versions, processes by state, and the maps of one that is not patched', async () => {
    configure();
    const blocked = await host.start('gdb');
    const waiting = await host.start('x\u001b[2J\ny\u009b1m');
    await host.kcarectl('--lib-update', '--pid', String(blocked.pid));
    const { exitCode, stdout } = await host.kcarectl('--doctor', '--json');
    expect(exitCode).toBe(0);
    const { key, file, sections } = JSON.parse(stdout) as {
      key: null;
      file: string;
      sections: { title: string; text: string }[];
    };
    expect({ key, file }).toEqual({ key: null, file: keptFile() });
    const of = (title: string): string => sections.find((section) => section.title === title)?.text ?? '';
    expect(of('Versions')).toMatch(/^kcare \d/);
    expect(of('System')).toMatch(/Kernel: \d/);
    expect(of('Disk space')).toMatch(/MiB free/);
    expect(of('Processes')).toContain('pending: 1, excluded: 1');
    expect(of('Maps of one process that is not patched')).toContain('libanswers.so');
    expect(of('Log')).toContain('"--lib-update"');
    const kept = readFileSync(keptFile(), 'utf8');
    for (const { title } of sections) expect(kept).toContain(`== ${title} ==`);
    // Whoever reads the report does so on a terminal.
    expect(of('Maps of one process that is not patched')).toContain('/x\\u001b[2J\\012y\\u009b1m\n');
    expect(kept.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    for (const one of [blocked, waiting]) await host.small.stop(one);
  });

  it('sends the report and names the key under which the server keeps it', async () => {
    const { url } = await serve();
    configure(`REGISTRATION_URL=${url}`);
    const { exitCode, stdout, stderr } = await runKcarectl(host.agent.root, ['--doctor']);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    const [, key = ''] =
      /^Generating report\.\.\.\nUploading\.\.\.\nKey: (\S+)\nPlease, provide above mentioned key to KernelCare Support Team\n$/.exec(
        stdout,
      ) ?? [];
    expect(readdirSync(reports())).toEqual([key]);
    expect(statSync(join(reports(), key)).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(reports(), key), 'utf8')).toContain('== Versions ==');
    rmSync(join(reports(), key));
  });

  it('keeps the report and says so when the server does not take it', async () => {
    rmSync(keptFile(), { force: true });
    const { url } = await serve({ size: 100 });
    configure(`REGISTRATION_URL=${url}`);
    const { exitCode, stdout, stderr } = await runKcarectl(host.agent.root, ['--doctor']);
    expect(exitCode).toBe(1);
    expect(stdout).toContain(`The report is in ${keptFile()}`);
    expect(stdout).not.toContain('Key:');
    expect(stderr).toContain('was not taken');
    expect(readFileSync(keptFile(), 'utf8')).toContain('== Versions ==');
    expect(readdirSync(reports())).toEqual([]);
  });

  it('sends nothing that lets anybody in, wherever it stands', async () => {
    const secrets = [
      ...['pr0xy-pa55', 'p%40ss w"rd', 'tok3n-in-query', 'RegKey12345abcde', 'hash-s3cret'],
      ...['un-known-val', 'my.systemid.0815', 'old-comment-key'],
    ];
    const collected = await new Promise<{ url: string; bodies: string[]; server: Server }>((resolve) => {
      const bodies: string[] = [];
      const server = createServer((request, response) => {
        void text(request).then((body) => {
          bodies.push(body);
          response.end('{"key":"12345678.90"}');
        });
      });
      server.listen(0, '127.0.0.1', () => {
        const { port } = server.address() as AddressInfo;
        resolve({ url: `127.0.0.1:${port}`, bodies, server });
      });
    });
    configure(
      `REGISTRATION_URL="http://user:p%2540ss%20w%22rd@${collected.url}/RegKey12345abcde/?key=tok3n-in-query#hash-s3cret"`,
      'HTTPS_PROXY=http://proxy:pr0xy-pa55@127.0.0.1:9',
      'SYSTEM_KEY=my.systemid.0815',
      "NEW_THING='un-known-val'",
      '# OLD_KEY=old-comment-key',
    );
    // Whatever went into the log before.
    const log = join(host.agent.root, 'var/log/kcarectl.log');
    for (const secret of secrets.slice(0, -1))
      appendFileSync(log, `${JSON.stringify({ msg: `said ${secret}` })}\n`);
    appendFileSync(log, `${JSON.stringify({ msg: 'http://proxy:pr0xy-pa55@127.0.0.1:9/x' })}\n`);
    try {
      const { exitCode, stdout, stderr } = await runKcarectl(host.agent.root, ['--doctor', '--json'], {
        no_proxy: '*',
      });
      expect(exitCode, stdout + stderr).toBe(0);
      const [body = ''] = collected.bodies;
      expect(body).toContain('== Configuration ==');
      expect(body).toContain(`REGISTRATION_URL=http://***@${collected.url}/***/?key=***#***`);
      expect(body).toContain('HTTPS_PROXY=http://***@127.0.0.1:9/');
      expect(body).toContain('NEW_THING=***');
      for (const shown of [body, stdout]) {
        for (const secret of [...secrets, 'p@ss w"rd', 'p@ss w\\"rd', 'p%2540ss%20w%22rd'])
          expect(shown, secret).not.toContain(secret);
      }
    } finally {
      collected.server.close();
    }
  });

  it('works with a configuration that is not valid, and quotes none of it', async () => {
    writeFileSync(configFile(), 'PREFIX=main\nUPDATE_POLICY=s3cret-in-the-wrong-place\nnonsense hunter22\n');
    const { exitCode, stdout } = await host.kcarectl('--doctor', '--json');
    expect(exitCode).toBe(0);
    expect(stdout).toContain('CONFIG_INVALID');
    for (const shown of [stdout, readFileSync(keptFile(), 'utf8')]) {
      expect(shown).not.toContain('s3cret-in-the-wrong-place');
      expect(shown).not.toContain('hunter22');
    }
    writeFileSync(configFile(), 'UPDATE_POLICY=s3cret-in-the-wrong-place\n');
    expect((await host.kcarectl('--doctor', '--json')).stdout).not.toContain('s3cret-in-the-wrong-place');
  });
});

describe('kcare-server --reports', () => {
  const post = (url: string, body: string): Promise<Response> =>
    fetch(`${url}upload-report`, { method: 'POST', body });

  it('takes reports up to its limits of size and number, each under a key of its own', async () => {
    const { url } = await serve({ size: 1000, count: 2 });
    const first = await post(url, 'one');
    expect(first.status).toBe(201);
    const { key } = (await first.json()) as { key: string };
    expect(key).toMatch(/^[0-9a-f]{24}\.[0-9a-f-]{36}$/);
    expect((await post(url, 'x'.repeat(1001))).status).toBe(413);
    expect((await post(url, '')).status).toBe(400);
    expect((await post(url, 'two')).status).toBe(201);
    expect((await post(url, 'three')).status).toBe(507);
    expect(readdirSync(reports())).toHaveLength(2);
    expect((await fetch(`${url}upload-report`)).status).toBe(404);
    expect((await fetch(`${url}${key}`)).status).toBe(404);
    for (const name of readdirSync(reports())) rmSync(join(reports(), name));
  });

  it('cuts off a sender that never ends, and goes on serving others', async () => {
    const { url } = await serve({ size: 1000 });
    const { port } = new URL(url);
    const endless = connect(Number(port), '127.0.0.1');
    const closed = new Promise((resolve) => endless.once('close', resolve));
    endless.on('error', () => undefined);
    endless.write('POST /upload-report HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    const chunk = `400\r\n${'x'.repeat(1024)}\r\n`;
    const feed = (): void => {
      if (!endless.destroyed && endless.writable) endless.write(chunk, () => setImmediate(feed));
    };
    feed();
    await closed;
    expect((await post(url, 'fine')).status).toBe(201);
    for (const name of readdirSync(reports())) rmSync(join(reports(), name));
  });

  it('does not take them unless it is told where to keep them, nor keeps them where they would be served', async () => {
    const feedDirectory = join(directory, 'served');
    const plain = await startServer({ feedDirectory, port: 0 });
    servers.push(plain);
    expect((await post(plain.url, 'one')).status).toBe(405);
    await expect(
      startServer({ feedDirectory, port: 0, reportDirectory: join(feedDirectory, 'reports') }),
    ).rejects.toMatchObject({ code: 'USAGE' });
  });
});
