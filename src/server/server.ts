// An HTTP server for feeds: static files with exact caching rules, an access log, and an orderly end.
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { realpathSync, statSync } from 'node:fs';
import { isAbsolute, relative, resolve } from 'node:path';
import type { Logger } from 'pino';
import send from 'send';
import { KcareError, asKcareError } from '../base/errors.js';
import { type ReportLimits, ReportStore, reportPath, sendReportAnswer } from './reports.js';

export interface ServerOptions {
  /** The directory above the prefixes, as given to `kcare-build publish --feed`. */
  readonly feedDirectory: string;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Default 8140; 0 lets the system choose. */
  readonly port?: number;
  readonly log?: Logger;
  /** Where reports of `kcarectl --doctor` are kept; absent: they are not taken. */
  readonly reportDirectory?: string;
  readonly reportLimits?: Partial<ReportLimits>;
}

export interface RunningServer {
  /** Base URL, to be used as PATCH_SERVER. */
  readonly url: string;
  /** Stops accepting, lets running answers finish (at most `graceMs`, default 5000 milliseconds), then cuts them off. */
  close(graceMs?: number): Promise<void>;
}

const yearSeconds = 31_536_000;
const timestampSeconds = 30;

/** Content-addressed targets and numbered metadata never change; all else may at any publication. */
export function cacheControl(path: string): string {
  const immutable =
    /\/metadata\/\d+\.(root|snapshot|targets)\.json(\.asc)?$/.test(path) ||
    /\/targets\/([^/]+\/)*[0-9a-f]{64}\.[^/]+$/.test(path);
  return immutable ? `public, max-age=${yearSeconds}, immutable` : `public, max-age=${timestampSeconds}`;
}

/** Serves `feedDirectory`. Throws FILE_MISSING for no directory, USAGE when the address cannot be used or reports would be served, UNSAFE_MODE. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const root = resolve(options.feedDirectory);
  if (statSync(root, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new KcareError('FILE_MISSING', `${root} is not a directory.`);
  }
  const reports = await openReports(options, root);
  const server = createServer((request, response) => {
    const started = process.hrtime.bigint();
    response.on('close', () => {
      options.log?.info(
        {
          method: request.method,
          url: request.url,
          status: response.statusCode,
          complete: response.writableFinished,
          remote: request.socket.remoteAddress,
          milliseconds: Number(process.hrtime.bigint() - started) / 1e6,
        },
        'request',
      );
    });
    if (reports && isReport(request)) {
      void reports.take(request).then((taken) => sendReportAnswer(response, taken));
      return;
    }
    answer(root, request, response);
  });
  // Clients that send their request too slowly must not hold a connection for ever.
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  server.on('clientError', (_error, socket) => socket.destroy());
  const host = options.host ?? '127.0.0.1';
  await listen(server, host, options.port ?? 8140);
  const { address, port, family } = server.address() as AddressInfo;
  const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/`;
  return { url, close: async (graceMs = 5000) => await stop(server, graceMs) };
}

/** Reports tell about hosts: they must not lie where everybody can fetch them. */
async function openReports(
  { reportDirectory, reportLimits }: ServerOptions,
  root: string,
): Promise<ReportStore | undefined> {
  if (reportDirectory === undefined) return undefined;
  const store = await ReportStore.open(reportDirectory, reportLimits);
  const inside = relative(realpathSync(root), realpathSync(store.directory));
  if (inside === '' || !(inside.startsWith('..') || isAbsolute(inside))) {
    throw new KcareError('USAGE', `The reports must not be kept inside of ${root}, which is served.`);
  }
  return store;
}

function isReport({ method, url }: IncomingMessage): boolean {
  return method === 'POST' && url?.split('?')[0] === reportPath;
}

function answer(root: string, request: IncomingMessage, response: ServerResponse): void {
  response.setHeader('x-content-type-options', 'nosniff');
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    finish(response, 405);
    return;
  }
  let path: string;
  try {
    path = new URL(request.url ?? '/', 'http://feed').pathname;
  } catch {
    finish(response, 400);
    return;
  }
  send(request, path, { root, dotfiles: 'deny', index: false, cacheControl: false })
    .on('headers', (sent: ServerResponse) => sent.setHeader('cache-control', cacheControl(path)))
    .on('directory', () => finish(response, 404))
    .on('error', (error: { status?: number; headers?: Record<string, string> }) => {
      for (const [name, value] of Object.entries(error.headers ?? {})) response.setHeader(name, value);
      // What must not be seen is not told apart from what is not there.
      finish(response, error.status === 403 ? 404 : (error.status ?? 500));
    })
    .pipe(response);
}

function finish(response: ServerResponse, status: number): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.statusCode = status;
  response.removeHeader('etag');
  response.setHeader('cache-control', 'no-store');
  response.setHeader('content-type', 'text/plain; charset=utf-8');
  response.end(`${status}\n`);
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    await new Promise<void>((done, fail) => {
      server.once('error', fail);
      server.listen(port, host, () => {
        server.off('error', fail);
        done();
      });
    });
  } catch (error) {
    const { code, message } = asKcareError(error);
    throw new KcareError(
      code === 'NOT_PERMITTED' ? code : 'USAGE',
      `Cannot listen: ${message}.`,
      {},
      { cause: error },
    );
  }
}

async function stop(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((done) => server.close(() => done()));
  server.closeIdleConnections();
  const cut = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearTimeout(cut);
}
