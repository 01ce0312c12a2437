// Asks libcare-server, or finds out in time that there is none that answers.
import { existsSync, lstatSync } from 'node:fs';
import net from 'node:net';
import { dirname } from 'node:path';
import { agentPaths, version, type LibraryOptions, type LibraryResult } from '../agent/index.js';
import { KcareError } from '../base/errors.js';
import { safeDirectory } from '../base/safe-files.js';
import { LineCutter } from './lines.js';
import {
  errorFrom,
  libraryResultFrom,
  longestAnswer,
  protocolVersion,
  type Request,
  type RequestName,
} from './protocol.js';

/** A server that does not greet, milliseconds: kcarectl does the work itself then. */
const greetingMs = 2_000;
const endSignals = ['SIGTERM', 'SIGINT'] as const;
/** A server that works says so every other second. */
const silenceMs = 20_000;
const gone = 'it closed the connection';

export interface AskOptions {
  readonly onProgress?: ((progress: unknown) => void) | undefined;
  /** How long to wait for its greeting, milliseconds: systemd may have to start it first. */
  readonly greetingMs?: number;
  /** How long a server that works may say nothing, milliseconds. */
  readonly silenceMs?: number;
}

/** No server answers: whatever was asked has to be done without it. */
export class NoServer extends Error {
  constructor(
    why: string,
    /** It took the request, and what it began may go on. */
    readonly wasAsked: boolean,
    /** It was there and went: a service manager starts the next one. */
    readonly isGone = false,
  ) {
    super(why);
  }
}

export type Question = Partial<Omit<Request, 'protocol' | 'request'>> & { readonly request: RequestName };

/**
 * The result, as the server says it. Throws NoServer, RUN_ENDED when this process was told to end and got no report,
 * and as KcareError what went wrong.
 */
export async function askServer(
  root: string,
  question: Question,
  options: AskOptions = {},
): Promise<unknown> {
  const { socket: path } = agentPaths(root);
  if (!existsSync(path)) throw new NoServer(`${path} does not exist`, false);
  // R10: nobody but root can have put it there.
  await safeDirectory(dirname(path));
  const { uid } = lstatSync(path);
  if (uid !== 0 && uid !== process.geteuid?.())
    throw new KcareError('UNSAFE_MODE', `${path} belongs to user ${uid}; it is not used.`, { path });
  return await converse(path, question, options);
}

function converse(path: string, question: Question, options: AskOptions): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path);
    const cutter = new LineCutter(longestAnswer);
    let timer: NodeJS.Timeout | undefined;
    let state: 'greeting' | 'asked' = 'greeting';
    let endedBy: NodeJS.Signals | undefined;
    const end = (signal: NodeJS.Signals): void => {
      forget();
      endedBy = signal;
      socket.write(`${JSON.stringify({ protocol: protocolVersion, end: true })}\n`);
    };
    const forget = (): void => {
      for (const signal of endSignals) process.off(signal, end);
    };
    const settle = (action: () => void): void => {
      clearTimeout(timer);
      forget();
      socket.destroy();
      action();
    };
    const fail = (why: string, isGone = false): void =>
      settle(() =>
        reject(
          endedBy
            ? new KcareError('RUN_ENDED', `${endedBy} ended the run; there is no report of it: ${why}.`)
            : new NoServer(why, state === 'asked', isGone),
        ),
      );
    const wait = (ms: number): void => {
      clearTimeout(timer);
      timer = setTimeout(() => fail(`it says nothing for ${ms / 1000} s`), ms);
    };
    const beRefused = (error: KcareError): void => {
      // As many clients as it serves: it has not heard what is wanted.
      if (state === 'greeting' && error.code === 'LOCK_HELD') fail(error.message);
      // It had not come to any process: then a signal ends this one as if there were no server.
      else if (endedBy && error.code === 'RUN_ENDED') settle(() => process.kill(process.pid, endedBy));
      else settle(() => reject(error));
    };
    const hear = (line: string | null): void => {
      const said = parseLine(line);
      if (said === undefined) {
        fail('it speaks another language');
        return;
      }
      wait(options.silenceMs ?? silenceMs);
      if ('error' in said) {
        beRefused(errorFrom(said['error']));
        return;
      }
      if (state === 'greeting') {
        if (said['protocol'] !== protocolVersion || said['version'] !== version()) {
          fail('it is of another version');
          return;
        }
        state = 'asked';
        socket.write(`${JSON.stringify({ protocol: protocolVersion, ...question })}\n`);
        // Whoever only looks is ended by a signal at once.
        if (question.request === 'update' || question.request === 'unload')
          for (const signal of endSignals) process.on(signal, end);
        return;
      }
      if ('result' in said) {
        settle(() => resolve(said['result']));
        return;
      }
      if ('progress' in said) options.onProgress?.(said['progress']);
    };
    socket.on('data', (bytes: Buffer) => {
      for (const line of cutter.feed(bytes)) if (!socket.destroyed) hear(line);
    });
    const goneCodes = ['ECONNRESET', 'EPIPE'];
    socket.once('error', (error: NodeJS.ErrnoException) =>
      goneCodes.includes(error.code ?? '') ? fail(gone, true) : fail(error.message),
    );
    socket.once('close', () => fail(gone, true));
    wait(options.greetingMs ?? greetingMs);
  });
}

function parseLine(line: string | null): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line ?? '');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Only root may ask, and what a run takes from the environment of kcarectl the server does not have. */
export function mayAskServer(): boolean {
  const proxies = ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'];
  return process.geteuid?.() === 0 && proxies.every((name) => (process.env[name] ?? '') === '');
}

/** What the server answers; undefined when none does, and it has to be done here. */
export async function answerOfServer(
  root: string,
  question: Question,
  options: AskOptions = {},
): Promise<{ readonly value: unknown } | undefined> {
  if (!mayAskServer()) return undefined;
  try {
    return { value: await askServer(root, question, options) };
  } catch (thrown) {
    if (thrown instanceof NoServer) return undefined;
    throw thrown;
  }
}

/**
 * An update or unload by the server, or by `here` when none answers. One that took the request and fell silent may still
 * work on it: `here` waits for its lock, and the result says what happened (R6).
 */
export async function runByServer(
  root: string,
  request: 'update' | 'unload',
  { pids, waitMs, dryRun, onProgress }: LibraryOptions,
  here: () => Promise<LibraryResult>,
  limits: Pick<AskOptions, 'greetingMs' | 'silenceMs'> = {},
): Promise<LibraryResult> {
  if (!mayAskServer()) return await here();
  const question = { request, waitMs: Math.ceil(waitMs), dryRun, ...(pids && { pids }) };
  const progressed = (progress: unknown): void => {
    const { done, total, pid } = progress as { done: unknown; total: unknown; pid: unknown };
    if (typeof done === 'number' && typeof total === 'number' && typeof pid === 'number')
      onProgress?.(done, total, pid);
  };
  try {
    return libraryResultFrom(await askServer(root, question, { ...limits, onProgress: progressed }));
  } catch (thrown) {
    if (!(thrown instanceof NoServer)) throw thrown;
    if (!thrown.wasAsked) return await here();
    return await insteadOfServer(thrown.message, here);
  }
}

async function insteadOfServer(why: string, here: () => Promise<LibraryResult>): Promise<LibraryResult> {
  const warning = `libcare-server took the request, but ${why}; kcarectl did the work itself.`;
  try {
    const result = await here();
    return { ...result, warnings: [warning, ...result.warnings] };
  } catch (thrown) {
    if (!(thrown instanceof KcareError) || thrown.code !== 'LOCK_HELD') throw thrown;
    const message = `libcare-server took the request, but ${why}, and may still work on it: ${thrown.message}`;
    throw new KcareError('LOCK_HELD', message, thrown.details);
  }
}
