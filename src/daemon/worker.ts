// `libcare-worker`: does one piece of the server's work and ends, so that OpenPGP and the memory for it end, too.
//
// One job as JSON in the argument; lines of JSON on standard output: {progress}, at the end {result} or {error}.
import os from 'node:os';
import {
  fetchStanding,
  libInfo,
  libPatchInfo,
  libUnload,
  libUpdate,
  openAgent,
  readStanding,
} from '../agent/index.js';
import { asKcareError } from '../base/errors.js';
import { integer, list, oneOf, optional, record, text, boolean, type Shaped } from '../base/shapes.js';
import { libraryResultToJson } from './protocol.js';

const jobShape = record({
  root: text(4096),
  job: oneOf('info', 'patch-info', 'update', 'unload', 'standing', 'fetch'),
  pids: optional<readonly number[] | undefined>(list(integer(1), 65_536), undefined),
  waitMs: optional(integer(0), 0),
  dryRun: optional(boolean, false),
  buildIds: optional(list(text(128), 65_536), []),
});

export type Job = Shaped<typeof jobShape>;

const progressMs = 100;

async function work(job: Job): Promise<unknown> {
  const { root, pids } = job;
  switch (job.job) {
    case 'info':
      return await libInfo(root, { pids });
    case 'patch-info':
      return libPatchInfo({ pids });
    case 'standing':
      return await readStanding(root);
    case 'fetch':
      await fetchStanding(await openAgent(root), job.buildIds);
      return {};
    case 'update':
    case 'unload': {
      const agent = await openAgent(root);
      let shown = -Infinity;
      const onProgress = (done: number, total: number, pid: number): void => {
        if (performance.now() - shown < progressMs) return;
        shown = performance.now();
        say({ progress: { done, total, pid } });
      };
      const options = { pids, waitMs: job.waitMs, dryRun: job.dryRun, onProgress };
      return libraryResultToJson(await (job.job === 'update' ? libUpdate : libUnload)(agent, options));
    }
  }
}

function say(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

// The server's own is higher.
if (os.getPriority() < 0) os.setPriority(0);
// The server may be gone: the run is finished all the same.
process.stdout.on('error', () => undefined);
try {
  say({ result: await work(jobShape(JSON.parse(process.argv[2] ?? ''))) });
} catch (thrown) {
  say({ error: asKcareError(thrown).toJSON() });
}
