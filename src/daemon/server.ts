// The socket of libcare-server: who may speak, how long, how much, and how slowly (R10).
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import net from 'node:net';
import { dirname } from 'node:path';
import { peerUser } from '../addon/host.js';
import { asKcareError, KcareError } from '../base/errors.js';
import { safeDirectory } from '../base/safe-files.js';
import { version } from '../agent/index.js';
import { LineCutter } from './lines.js';
import { isEndLine, longestRequest, parseRequest, protocolVersion, type Request } from './protocol.js';

const mostClients = 64;
/** A client that says nothing is sent away; milliseconds. */
const silenceMs = 10_000;
/** Sent while a request is worked on, so that the client sees that the server lives; milliseconds. */
const heartbeatMs = 2_000;
/** A client that does not read what is waiting for it is sent away; milliseconds. */
const unreadMs = 30_000;

export interface Answering {
  readonly result: Promise<unknown>;
  readonly end: () => void;
}

/** Begins to work on a request; `onProgress` sends a line meanwhile. */
export type Answer = (request: Request, onProgress: (progress: unknown) => void) => Answering;

export interface ServerCounts {
  clients: number;
  requests: number;
  refused: number;
}

export interface RunningServer {
  readonly counts: ServerCounts;
  /** No new clients; those that are being answered get their answers. */
  close(): Promise<void>;
}

/** Listens on `path`, or on `descriptor` that systemd opened. Throws UNSAFE_MODE, LOCK_HELD when another server answers there. */
export async function startServer(
  path: string,
  descriptor: number | undefined,
  answer: Answer,
): Promise<RunningServer> {
  const counts: ServerCounts = { clients: 0, requests: 0, refused: 0 };
  const sockets = new Set<net.Socket>();
  /** Those whose request is worked on. */
  const answered = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    counts.clients = sockets.size;
    socket.once('close', () => {
      sockets.delete(socket);
      counts.clients = sockets.size;
    });
    socket.on('error', () => undefined);
    if (sockets.size > mostClients) {
      refuse(socket, counts, new KcareError('LOCK_HELD', `More than ${mostClients} clients are connected.`));
      return;
    }
    const user = userAt(socket);
    if (user !== 0 && user !== process.geteuid?.()) {
      refuse(socket, counts, new KcareError('NOT_PERMITTED', 'Only root may use libcare-server.'));
      return;
    }
    serve(socket, answer, counts, answered);
  });
  if (descriptor === undefined) await listen(server, path);
  else
    await new Promise<void>((resolve, reject) =>
      server.once('error', reject).listen({ fd: descriptor }, resolve),
    );
  return {
    counts,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        // Those that were answered, or never asked, have no reason to stay.
        const sendAway = (): void => {
          for (const socket of sockets)
            if (!answered.has(socket) && socket.writableLength === 0) socket.destroy();
        };
        setInterval(sendAway, 500).unref();
      }),
  };
}

async function listen(server: net.Server, path: string): Promise<void> {
  await safeDirectory(dirname(path));
  if (lstatSync(path, { throwIfNoEntry: false })) {
    if (await answers(path))
      throw new KcareError('LOCK_HELD', `Another libcare-server listens on ${path}.`, { path });
    unlinkSync(path);
  }
  const before = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  } finally {
    process.umask(before);
  }
  chmodSync(path, 0o600);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** -1 when it cannot be told. */
function userAt(socket: net.Socket): number {
  try {
    const handle = (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle;
    return peerUser(handle?.fd ?? -1);
  } catch {
    return -1;
  }
}

function refuse(socket: net.Socket, counts: ServerCounts, error: KcareError): void {
  counts.refused++;
  socket.end(`${JSON.stringify({ error: error.toJSON() })}\n`);
  setTimeout(() => socket.destroy(), 1000).unref();
}

/** One client: a greeting, then one request after the other, each answered before the next is read. */
function serve(socket: net.Socket, answer: Answer, counts: ServerCounts, answered: Set<net.Socket>): void {
  const cutter = new LineCutter(longestRequest);
  let working: Answering | undefined;
  let silence: NodeJS.Timeout | undefined;
  let unread: NodeJS.Timeout | undefined;
  const say = (line: object): void => {
    if (socket.destroyed || socket.writableEnded) return;
    if (socket.write(`${JSON.stringify(line)}\n`)) return;
    unread ??= setTimeout(() => socket.destroy(), unreadMs);
  };
  /** What a slow client has not read yet must not pile up here. */
  const sayInPassing = (line: object): void => {
    if (!socket.writableNeedDrain) say(line);
  };
  const expectRequest = (): void => {
    silence = setTimeout(() => socket.destroy(), silenceMs);
  };
  const work = async (request: Request): Promise<void> => {
    clearTimeout(silence);
    counts.requests++;
    answered.add(socket);
    const heartbeat = setInterval(() => sayInPassing({ working: true }), heartbeatMs);
    try {
      working = answer(request, (progress) => sayInPassing({ progress }));
      say({ result: await working.result });
    } catch (thrown) {
      say({ error: asKcareError(thrown).toJSON() });
    } finally {
      clearInterval(heartbeat);
      working = undefined;
      answered.delete(socket);
      expectRequest();
    }
  };
  const receive = (line: string | null): void => {
    if (working) {
      if (line !== null && isEndLine(line)) working.end();
      else
        refuse(socket, counts, new KcareError('USAGE', 'A request came before the last one was answered.'));
      return;
    }
    try {
      if (line === null) throw new Error(`The request is longer than ${longestRequest} characters.`);
      void work(parseRequest(line));
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      refuse(socket, counts, new KcareError('USAGE', `This is not a request: ${reason}`));
    }
  };
  socket.on('data', (bytes: Buffer) => {
    for (const line of cutter.feed(bytes)) {
      if (socket.writableEnded || socket.destroyed) return;
      receive(line);
    }
  });
  socket.on('drain', () => {
    clearTimeout(unread);
    unread = undefined;
  });
  socket.once('close', () => {
    clearTimeout(silence);
    clearTimeout(unread);
    // Whoever asked no longer wants it: as when kcarectl itself is ended.
    working?.end();
  });
  say({ server: 'libcare-server', protocol: protocolVersion, version: version() });
  expectRequest();
}
