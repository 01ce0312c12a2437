// The gate through which every process of a trial goes before main: patched or not, as the trial wants it.
import { readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { apply, type PatchToApply, type TargetReport } from '../engine/index.js';
import { mappedObjects } from '../proc/index.js';
import type { TrialPlace } from './trial-place.js';

export interface GatedProcess {
  readonly pid: number;
  /** Undefined where the run is without the patch. */
  readonly report: TargetReport | undefined;
}

/** Longer than any process number. */
const longestLine = 32;

export class TrialGate {
  /** Processes that had the object mapped when they came. */
  readonly processes: GatedProcess[] = [];
  private readonly open = new Set<Socket>();
  private queue: Promise<void> = Promise.resolve();

  private constructor(
    private readonly server: Server,
    private readonly place: TrialPlace,
    private readonly patch: PatchToApply,
    private readonly isPatching: boolean,
    private readonly waitMs: number,
  ) {}

  /** Opens the gate at the socket of `place`; `close` is the inverse. */
  static async open(
    place: TrialPlace,
    patch: PatchToApply,
    options: { readonly isPatching: boolean; readonly waitMs: number },
  ): Promise<TrialGate> {
    const server = createServer();
    const gate = new TrialGate(server, place, patch, options.isPatching, options.waitMs);
    server.on('connection', (socket) => gate.receive(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(place.socket, resolve);
    });
    return gate;
  }

  /** Lets every process go that still waits. */
  async close(): Promise<void> {
    await this.queue;
    for (const socket of this.open) socket.destroy();
    await new Promise<void>((resolve) => {
      this.server.close(() => resolve());
    });
  }

  private receive(socket: Socket): void {
    this.open.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.open.delete(socket));
    let text = '';
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (!text.includes('\n') && text.length < longestLine) return;
      socket.removeAllListeners('data');
      const pid = /^(\d+)\n/.exec(text)?.[1];
      this.queue = this.queue.then(async () => {
        if (pid !== undefined) await this.serve(Number(pid));
        socket.end('.');
      });
    });
  }

  private async serve(pid: number): Promise<void> {
    if (!isOfTrial(pid, this.place.socket) || !mapsObject(pid, this.patch.patch.buildId)) return;
    const options = { waitMs: this.waitMs, dryRun: false, intentDirectory: this.place.directory };
    const report = this.isPatching ? await apply(pid, [this.patch], options) : undefined;
    this.processes.push({ pid, report });
  }
}

/** Whoever connects says which process it is: only those that the trial has started are touched. */
function isOfTrial(pid: number, socket: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`KCARE_TRIAL=${socket}`);
  } catch {
    return false;
  }
}

function mapsObject(pid: number, buildId: string): boolean {
  try {
    return mappedObjects(pid).some((object) => object.executable && object.buildId === buildId);
  } catch {
    return false;
  }
}
