// Fetches single files by http and https, through proxies where they are set, bounded in size and time.
import { DownloadHTTPError, DownloadLengthMismatchError } from 'tuf-js/dist/error.js';
import { EnvHttpProxyAgent, interceptors, request } from 'undici';
import type { FetcherOptions } from './fetcher.js';

export class HttpClient {
  readonly #agent: EnvHttpProxyAgent;
  readonly #options: FetcherOptions;

  constructor(options: FetcherOptions) {
    this.#options = options;
    this.#agent = new EnvHttpProxyAgent({
      ...(options.proxy?.http === undefined ? {} : { httpProxy: options.proxy.http }),
      ...(options.proxy?.https === undefined ? {} : { httpsProxy: options.proxy.https }),
      // Proxies commonly refuse CONNECT to port 80: plain http goes through them in absolute form.
      proxyTunnel: false,
    });
  }

  /** Throws DownloadHTTPError for HTTP statuses, DownloadLengthMismatchError for too many bytes, or what undici throws. */
  async get(url: string, maxLength: number): Promise<Buffer> {
    const signal = AbortSignal.timeout(this.#options.timeoutMs);
    const { statusCode, headers, body } = await request(url, {
      dispatcher: this.#agent.compose(interceptors.redirect({ maxRedirections: 3 })),
      headers: { 'user-agent': this.#options.userAgent, 'accept-encoding': 'identity' },
      signal,
    });
    if (statusCode !== 200) {
      body.on('error', () => undefined).destroy();
      throw new DownloadHTTPError(`HTTP status ${statusCode}`, statusCode);
    }
    return await readBody(headers, body, maxLength);
  }

  /** Sends `bytes` and returns the answer to it; redirects are not followed. Throws as {@link get}. */
  async post(url: string, bytes: Uint8Array, maxLength: number): Promise<Buffer> {
    const { statusCode, headers, body } = await request(url, {
      method: 'POST',
      body: bytes,
      dispatcher: this.#agent,
      headers: { 'user-agent': this.#options.userAgent, 'content-type': 'text/plain; charset=utf-8' },
      signal: AbortSignal.timeout(this.#options.timeoutMs),
    });
    if (statusCode !== 200 && statusCode !== 201) {
      body.on('error', () => undefined).destroy();
      throw new DownloadHTTPError(`HTTP status ${statusCode}`, statusCode);
    }
    return await readBody(headers, body, maxLength);
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

type Answer = Awaited<ReturnType<typeof request>>;

async function readBody(
  headers: Answer['headers'],
  body: Answer['body'],
  maxLength: number,
): Promise<Buffer> {
  // Announced lengths are checked first; the bytes are counted all the same.
  if (Number(headers['content-length'] ?? 0) > maxLength) {
    body.on('error', () => undefined).destroy();
    throw new DownloadLengthMismatchError(`more than ${maxLength} bytes are announced`);
  }
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxLength) throw new DownloadLengthMismatchError(`more than ${maxLength} bytes are sent`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}
