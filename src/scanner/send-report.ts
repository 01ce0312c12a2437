// Sends a report to the server that the configuration names, or leaves it in /root/cl-report.
import { join } from 'node:path';
import type { Agent } from '../agent/index.js';
import { userAgent } from '../agent/version.js';
import { asKcareError, KcareError, namingFullDisk } from '../base/errors.js';
import { writeAtomically } from '../base/safe-files.js';
import { record, ShapeError, textThat } from '../base/shapes.js';

const timeoutMs = 60_000;
const longestAnswer = 4096;

const answerShape = record({
  key: textThat((value) => /^[A-Za-z0-9][A-Za-z0-9.-]{7,127}$/.test(value), 'a key'),
});

/** Where reports go: below REGISTRATION_URL, else below PATCH_SERVER where that is a web server. */
export function reportUrl({ config }: Agent): URL | undefined {
  const base = config.registrationUrl ?? config.patchServer;
  if (base === undefined || !URL.canParse(base)) return undefined;
  const url = new URL(base);
  if (!['http:', 'https:'].includes(url.protocol)) return undefined;
  url.pathname = `${url.pathname.replace(/\/$/, '')}/upload-report`;
  return url;
}

/** The key by which support finds the report. Throws UPLOAD_FAILED. */
export async function uploadReport({ config }: Agent, url: URL, text: string): Promise<string> {
  const { HttpClient } = await import('../feed/http.js');
  const client = new HttpClient({
    timeoutMs,
    userAgent: userAgent(),
    proxy: {
      ...(config.httpProxy !== undefined && { http: config.httpProxy }),
      ...(config.httpsProxy !== undefined && { https: config.httpsProxy }),
    },
  });
  try {
    const answer = await client.post(url.href, Buffer.from(text), longestAnswer);
    return answerShape(JSON.parse(answer.toString('utf8'))).key;
  } catch (thrown) {
    const why =
      thrown instanceof ShapeError || thrown instanceof SyntaxError
        ? 'its answer names no key'
        : asKcareError(thrown).message;
    // The URL may hold a key or a password.
    throw new KcareError(
      'UPLOAD_FAILED',
      `The report was not taken by ${url.host}: ${why}.`,
      {},
      { cause: thrown },
    );
  } finally {
    await client.close();
  }
}

/** Writes the report where only root can read it; returns the path. Throws NOT_PERMITTED, NO_SPACE. */
export async function keepReport(root: string, text: string): Promise<string> {
  const path = join(root, 'root/cl-report');
  await namingFullDisk(path, () => writeAtomically(path, Buffer.from(text), 0o600));
  return path;
}
