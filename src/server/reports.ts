// Takes reports of `kcarectl --doctor`: one file each, bounded in size and number, readable by nobody but the server.
import { randomBytes, randomUUID } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { asKcareError } from '../base/errors.js';
import { safeDirectory, writeAtomically } from '../base/safe-files.js';

export interface ReportLimits {
  /** Bytes of one report. */
  readonly size: number;
  /** Bytes of all reports, and how many there may be. */
  readonly total: number;
  readonly count: number;
  /** How many may be on their way at once. */
  readonly concurrent: number;
}

export const defaultReportLimits: ReportLimits = {
  size: 8 * 1024 * 1024,
  total: 1024 * 1024 * 1024,
  count: 10_000,
  concurrent: 8,
};

export const reportPath = '/upload-report';

/** What is answered, and the key of a report that was kept. */
export interface ReportAnswer {
  readonly status: number;
  readonly key?: string;
}

/** A directory of reports. Its files are only ever added; who reads them removes them. */
export class ReportStore {
  private running = 0;

  private constructor(
    readonly directory: string,
    private readonly limits: ReportLimits,
  ) {}

  /** Makes the directory, mode 0700, if it is missing. Throws UNSAFE_MODE (R10). */
  static async open(directory: string, limits: Partial<ReportLimits> = {}): Promise<ReportStore> {
    return new ReportStore(await safeDirectory(directory, 0o700), { ...defaultReportLimits, ...limits });
  }

  /** Reads the body of `request` and keeps it. Never throws: 413 too long, 503 too many at once, 507 no room. */
  async take(request: IncomingMessage): Promise<ReportAnswer> {
    if (this.running >= this.limits.concurrent) return { status: 503 };
    this.running += 1;
    try {
      if (Number(request.headers['content-length'] ?? 0) > this.limits.size) return { status: 413 };
      const bytes = await readBody(request, this.limits.size);
      if (bytes === undefined) return { status: 413 };
      if (bytes.length === 0) return { status: 400 };
      if (!(await this.hasRoom(bytes.length))) return { status: 507 };
      const key = `${randomBytes(12).toString('hex')}.${randomUUID()}`;
      await writeAtomically(join(this.directory, key), bytes, 0o600);
      return { status: 201, key };
    } catch (thrown) {
      return { status: asKcareError(thrown).code === 'NO_SPACE' ? 507 : 500 };
    } finally {
      this.running -= 1;
    }
  }

  /** Others that are being written meanwhile count with the most that they can be. */
  private async hasRoom(length: number): Promise<boolean> {
    const names = await readdir(this.directory);
    if (names.length + this.running > this.limits.count) return false;
    let total = length + (this.running - 1) * this.limits.size;
    for (const name of names)
      total += await stat(join(this.directory, name)).then(
        ({ size }) => size,
        () => 0,
      );
    return total <= this.limits.total;
  }
}

/** Undefined when it is longer than `most` bytes, whatever length was announced. */
async function readBody(request: IncomingMessage, most: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > most) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}

/** Answers as JSON; what is left of a request that was not read to its end is cut off. */
export function sendReportAnswer(response: ServerResponse, { status, key }: ReportAnswer): void {
  response.writeHead(status, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    ...(key === undefined && { connection: 'close' }),
  });
  response.end(`${JSON.stringify(key === undefined ? { status } : { key })}\n`);
}
