// A host whose libcare-server is started by its first client, as systemd does it, without systemd.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import { LocalHost } from '../../fixtures/support/local-host.js';
import { Program } from '../../fixtures/support/program.js';
import { packageRoot } from '../../src/base/package-root.js';
import { program, runProgram } from './served-host.js';

/** A command that runs; its result comes when it has ended. */
export interface RunningCommand {
  readonly kill: (signal: NodeJS.Signals) => void;
  readonly result: Promise<CommandResult>;
}

export class ActivatedHost {
  private constructor(
    readonly host: LocalHost,
    private readonly launcher: Program,
  ) {}

  /** `notifySocket`: where the server says that it is ready; default: a path below the root directory. */
  static async start(
    directory: string,
    patches: readonly string[],
    notifySocket = join(directory, 'notify'),
  ): Promise<ActivatedHost> {
    const host = await LocalHost.create(directory, patches);
    const place = join(host.root, 'run/libcare');
    mkdirSync(place, { recursive: true, mode: 0o755 });
    const script = join(packageRoot(), 'test/daemon/activate.py');
    const server = [program('libcare-server'), '--root', host.root];
    const words = [script, join(place, 'libcare.sock'), notifySocket, ...server];
    const launcher = await Program.start('/usr/bin/python3', words);
    await launcher.waitForLine(/^listening$/);
    return new ActivatedHost(host, launcher);
  }

  /** What the launcher has said: the server was started, has notified, has ended. */
  get events(): readonly string[] {
    return this.launcher.lines.slice(1);
  }

  /** The next event that matches; those before it count as seen. */
  event(pattern: RegExp): Promise<string> {
    return this.launcher.waitForLine(pattern);
  }

  get serverPid(): number {
    const last = this.events.findLast((line) => line.startsWith('started '));
    return Number(last?.split(' ')[1]);
  }

  /** What the server has started. */
  get workerPids(): number[] {
    const server = this.serverPid;
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && parentOf(name) === server)
      .map(Number);
  }

  client(...parameters: readonly string[]): Promise<CommandResult> {
    return runProgram('libcare-client', ['--root', this.host.root, ...parameters]);
  }

  begin(name: 'kcarectl' | 'libcare-client', ...parameters: readonly string[]): RunningCommand {
    const child = spawn(program(name), ['--root', this.host.root, ...parameters], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const result = new Promise<CommandResult>((resolve) =>
      child.once('close', (code) => resolve({ exitCode: code ?? -1, stdout, stderr })),
    );
    return { kill: (signal) => void child.kill(signal), result };
  }

  /** Ends the server as well; the inverse of {@link start}. */
  end(): Promise<void> {
    return this.launcher.end();
  }
}

function parentOf(pid: string): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/^PPid:\s*(\d+)$/m.exec(status)?.[1]);
  } catch {
    return undefined;
  }
}
