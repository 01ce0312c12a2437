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

/** A server that does not greet, milliseconds. */
const greetingMs = 2_000;
/** A server that works says so every other second. */
const silenceMs = 20_000;

export interface AskOptions {
  readonly onProgress?: ((progress: unknown) => void) | undefined;
}

/** No server answers: whatever was asked has to be done without it. */
export class NoServer extends Error {}

export type Question = Partial<Omit<Request, 'protocol' | 'request'>> & { readonly request: RequestName };

/** The result, as the server says it. Throws NoServer, and as KcareError what went wrong. */
export async function askServer(
  root: string,
  question: Question,
  options: AskOptions = {},
): Promise<unknown> {
  const { socket: path } = agentPaths(root);
  if (!existsSync(path)) throw new NoServer(`${path} does not exist`);
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
    const signals = ['SIGTERM', 'SIGINT'] as const;
    const end = (): void => {
      forget();
      socket.write(`${JSON.stringify({ protocol: protocolVersion, end: true })}\n`);
    };
    const forget = (): void => {
      for (const signal of signals) process.off(signal, end);
    };
    const settle = (action: () => void): void => {
      clearTimeout(timer);
      forget();
      socket.destroy();
      action();
    };
    const fail = (why: string): void => settle(() => reject(new NoServer(why)));
    const wait = (ms: number): void => {
      clearTimeout(timer);
      timer = setTimeout(() => fail(`the server says nothing for ${ms / 1000} s`), ms);
    };
    let isGreeted = false;
    const hear = (line: string | null): void => {
      const said = parseLine(line);
      if (said === undefined) {
        fail('the server speaks another language');
        return;
      }
      wait(silenceMs);
      if (!isGreeted && !('error' in said)) {
        if (said['protocol'] !== protocolVersion || said['version'] !== version()) {
          fail('the server is of another version');
          return;
        }
        isGreeted = true;
        socket.write(`${JSON.stringify({ protocol: protocolVersion, ...question })}\n`);
        for (const signal of signals) process.on(signal, end);
        return undefined;
      }
      if ('error' in said) {
        settle(() => reject(errorFrom(said['error'])));
        return;
      }
      if ('result' in said) {
        settle(() => resolve(said['result']));
        return;
      }
      if ('progress' in said) options.onProgress?.(said['progress']);
      return undefined;
    };
    socket.on('data', (bytes: Buffer) => {
      for (const line of cutter.feed(bytes)) if (!socket.destroyed) hear(line);
    });
    socket.once('error', (error) => fail(error.message));
    socket.once('close', () => fail('the server closed the connection'));
    wait(greetingMs);
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

/** An update or unload by the server; undefined when none answers. */
export async function runByServer(
  root: string,
  request: 'update' | 'unload',
  { pids, waitMs, dryRun, onProgress }: LibraryOptions,
): Promise<LibraryResult | undefined> {
  const question = { request, waitMs: Math.ceil(waitMs), dryRun, ...(pids && { pids }) };
  const answer = await answerOfServer(root, question, {
    onProgress: (progress) => {
      const { done, total, pid } = progress as { done: unknown; total: unknown; pid: unknown };
      if (typeof done === 'number' && typeof total === 'number' && typeof pid === 'number')
        onProgress?.(done, total, pid);
    },
  });
  return answer && libraryResultFrom(answer.value);
}
