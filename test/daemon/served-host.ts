// A host whose libcare-server runs: the real program, below a root directory of its own.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalHost } from '../../fixtures/support/local-host.js';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import { Program } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';

export class ServedHost {
  private constructor(
    readonly host: LocalHost,
    private server: Program,
  ) {}

  static async start(directory: string, patches: readonly string[]): Promise<ServedHost> {
    const host = await LocalHost.create(directory, patches);
    return new ServedHost(host, await startServer(host.root));
  }

  get socket(): string {
    return join(this.host.root, 'run/libcare/libcare.sock');
  }

  get serverPid(): number {
    return this.server.pid;
  }

  get isServing(): boolean {
    return this.server.isAlive;
  }

  /** Ends what is left of the server and starts another one. */
  async startAgain(): Promise<void> {
    await this.server.end();
    this.server = await startServer(this.host.root);
  }

  client(...parameters: readonly string[]): Promise<CommandResult> {
    return runProgram('libcare-client', ['--root', this.host.root, ...parameters]);
  }

  async status(): Promise<Record<string, unknown>> {
    return JSON.parse((await this.client('status')).stdout) as Record<string, unknown>;
  }

  async end(): Promise<void> {
    await this.server.end();
  }
}

async function startServer(root: string): Promise<Program> {
  const server = await Program.start(program('libcare-server'), ['--root', root]);
  const socket = join(root, 'run/libcare/libcare.sock');
  await until(async () => {
    if (!server.isAlive) throw new Error('libcare-server ended.');
    return existsSync(socket) && (await isListening(socket));
  });
  return server;
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export function program(name: string): string {
  return join(packageRoot(), 'bin', name);
}

export function runProgram(
  name: string,
  parameters: readonly string[],
  options: { readonly uid?: number } = {},
): Promise<CommandResult> {
  return runFile(program(name), parameters, options);
}

export function runFile(
  file: string,
  parameters: readonly string[],
  options: { readonly uid?: number } = {},
): Promise<CommandResult> {
  return new Promise((resolve) => {
    execFile(file, parameters, options, (error, stdout, stderr) =>
      resolve({ exitCode: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

/** Comes back when `condition` holds; after minutes something hangs. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 120_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`This did not come about: ${condition.toString()}`);
    await sleep(20);
  }
}

/** A raw conversation: writes `bytes`, and gives all lines until the server closes, or until `enough` of them came. */
export function converse(path: string, bytes: string | Buffer, enough = Infinity): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path, () => socket.write(bytes));
    let text = '';
    const finish = (): void => {
      socket.destroy();
      resolve(text.split('\n').filter((line) => line !== ''));
    };
    socket.on('data', (data: Buffer) => {
      text += data.toString();
      if (text.split('\n').length > enough) finish();
    });
    socket.once('close', finish);
    socket.once('error', (error: NodeJS.ErrnoException) =>
      ['EPIPE', 'ECONNRESET'].includes(error.code ?? '') ? finish() : reject(error),
    );
  });
}
