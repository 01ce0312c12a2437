// Reads the files of a feed over http, https (through proxies) or from file:// URLs: bounded in size and time.
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { DownloadHTTPError, DownloadLengthMismatchError } from 'tuf-js/dist/error.js';
import type { Fetcher } from 'tuf-js';
import { KcareError } from '../base/errors.js';
import type { HttpClient } from './http.js';

export interface ProxySettings {
  /** Proxy URLs for http and https; absent ones come from http_proxy, https_proxy and no_proxy of the environment. */
  readonly http?: string;
  readonly https?: string;
}

export interface FetcherOptions {
  readonly proxy?: ProxySettings;
  /** Longest time for one file, in milliseconds, from connecting to its last byte. */
  readonly timeoutMs: number;
  readonly userAgent: string;
  /** Further attempts after a lost connection or a 5xx answer; default 2. */
  readonly retries?: number;
}

/** The base URL of `server`, which may be an http(s) or file URL or a plain path. Throws USAGE. */
export function serverUrl(server: string): URL {
  if (server === '') throw new KcareError('USAGE', 'PATCH_SERVER is empty.');
  const isUrl = /^[a-z][a-z0-9+.-]*:/i.test(server);
  let url: URL;
  try {
    url = isUrl ? new URL(server) : pathToFileURL(server);
  } catch (cause) {
    throw new KcareError('USAGE', `The patch server ${server} is not a URL.`, {}, { cause });
  }
  if (!['http:', 'https:', 'file:'].includes(url.protocol)) {
    throw new KcareError('USAGE', `The patch server ${server} is neither http, https, file nor a path.`);
  }
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  return url;
}

/** The network side of a feed client; remembers the metadata it fetched and its last failure. */
export class FeedFetcher implements Fetcher {
  /** The last bytes fetched from each URL, for naming the cause of a refusal and for keeping roots. */
  readonly fetched = new Map<string, Buffer>();
  /** Set when the last download failed: the updater hides the class of such errors. */
  failure: Error | undefined;
  readonly #options: FetcherOptions;
  #http: HttpClient | undefined;

  constructor(options: FetcherOptions) {
    this.#options = options;
  }

  /** Throws DownloadHTTPError for HTTP statuses, DownloadLengthMismatchError for too many bytes, else FEED_UNREACHABLE. */
  async downloadBytes(url: string, maxLength: number): Promise<Buffer> {
    this.failure = undefined;
    const attempts = 1 + (this.#options.retries ?? 2);
    for (let attempt = 1; ; attempt++) {
      try {
        const bytes = url.startsWith('file:')
          ? await readLocal(url, maxLength)
          : await this.#get(url, maxLength);
        this.fetched.set(url, bytes);
        return bytes;
      } catch (error) {
        if (attempt < attempts && isTransient(error)) {
          await sleep(100 * 2 ** attempt);
          continue;
        }
        this.failure = asDownloadFailure(url, error);
        throw this.failure;
      }
    }
  }

  /** The updater asks for files only when it downloads targets, which this client does by itself. */
  downloadFile(): Promise<never> {
    return Promise.reject(new KcareError('INTERNAL', 'Targets are not downloaded through the updater.'));
  }

  async close(): Promise<void> {
    await this.#http?.close();
    this.#http = undefined;
  }

  /** The HTTP client takes longer to load than a feed in files takes to read. */
  async #get(url: string, maxLength: number): Promise<Buffer> {
    this.#http ??= new (await import('./http.js')).HttpClient(this.#options);
    return await this.#http.get(url, maxLength);
  }
}

async function readLocal(url: string, maxLength: number): Promise<Buffer> {
  const file = await open(fileURLToPath(url), 'r');
  try {
    const status = await file.stat();
    if (!status.isFile()) throw new DownloadHTTPError('not a file', 404);
    const bytes = Buffer.alloc(Math.min(status.size, maxLength + 1));
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length > maxLength)
      throw new DownloadLengthMismatchError(`the file is larger than ${maxLength} bytes`);
    return bytes.subarray(0, length);
  } finally {
    await file.close();
  }
}

function isTransient(error: unknown): boolean {
  if (error instanceof DownloadHTTPError) return error.statusCode >= 500;
  if (error instanceof DownloadLengthMismatchError) return false;
  // A server that is too slow once is not waited for again.
  return !(error instanceof Error && (error.name === 'TimeoutError' || systemCode(error) === 'ENOENT'));
}

/** The server says that there is no such file, in one of the two ways that The Update Framework takes for that. */
export function isAbsent(error: unknown): boolean {
  return error instanceof DownloadHTTPError && [403, 404].includes(error.statusCode);
}

function asDownloadFailure(url: string, error: unknown): Error {
  if (error instanceof DownloadHTTPError || error instanceof DownloadLengthMismatchError) return error;
  if (error instanceof Error && ['ENOENT', 'ENOTDIR'].includes(systemCode(error))) {
    return new DownloadHTTPError('no such file', 404);
  }
  const why = error instanceof Error ? error.message : String(error);
  return new KcareError(
    'FEED_UNREACHABLE',
    `${withoutPassword(url)} cannot be read: ${why}.`,
    {},
    { cause: error },
  );
}

/** A URL for messages and logs. */
export function withoutPassword(url: string): string {
  const parsed = new URL(url);
  parsed.username = '';
  parsed.password = '';
  return parsed.href;
}

function systemCode(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : '';
}
