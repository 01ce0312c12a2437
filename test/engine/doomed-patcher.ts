// Patchers that die at a given step of their work; the next one starts up while the test looks at what this one left.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect } from 'vitest';

/** As driver.mjs takes it. */
export interface Errand {
  readonly action: 'apply' | 'unload';
  readonly pid: number;
  /** A patch file. */
  readonly file: string;
  readonly intents: string;
}

const driver = join(import.meta.dirname, 'driver.mjs');

interface Started {
  readonly dieAt: number;
  readonly child: ChildProcess;
  readonly stdout: Promise<string>;
  readonly stderr: Promise<string>;
  readonly closed: Promise<unknown>;
}

function start(dieAt: number): Started {
  const child = spawn(process.execPath, [driver, '--wait'], {
    env: { ...process.env, KCARE_ENGINE_DIE_AT: String(dieAt) },
    stdio: 'pipe',
  });
  // One that was killed before it read its errand is told apart by how it ended.
  child.stdin.on('error', () => undefined);
  return {
    dieAt,
    child,
    stdout: text(child.stdout),
    stderr: text(child.stderr),
    closed: once(child, 'close'),
  };
}

export class DoomedPatchers {
  private next: Started | undefined;

  /** Runs an errand in a process that dies at step `dieAt`; true when it lived to its end. */
  async runAndDie({ action, pid, file, intents }: Errand, dieAt: number): Promise<boolean> {
    const ready = this.next?.dieAt === dieAt ? this.next : start(dieAt);
    if (ready !== this.next) this.next?.child.kill();
    this.next = undefined;
    ready.child.stdin?.end(JSON.stringify([action, String(pid), file, intents]));
    await ready.closed;
    this.next = start(dieAt + 1);
    if (ready.child.signalCode === 'SIGKILL') return false;
    expect(ready.child.exitCode, await ready.stderr).toBe(0);
    expect(await ready.stdout).toMatch(/^(?:applied|upgraded|unchanged|unloaded) $/m);
    return true;
  }

  async end(): Promise<void> {
    this.next?.child.kill();
    await this.next?.closed;
    this.next = undefined;
  }
}
