// The benchmark: what a real patch costs a target of 1, 100 and 1,000 threads, and 200 processes at once.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalHost } from '../fixtures/support/local-host.js';
import { fixtureProgram, opensslEnvironment } from '../fixtures/support/openssl.js';
import { buildOpensslPatch } from '../fixtures/support/patches.js';
import { Program } from '../fixtures/support/program.js';
import { measureUpdate, privateDirty, type Bench, type Sample } from './measure.js';
import { formatTable, summarize, type Row } from './summary.js';

interface Scenario {
  readonly title: string;
  readonly processes: number;
  /** Per process, one of them busy; 0: a single idle one. */
  readonly threads: number;
  readonly repetitions: number;
}

const scenarios: readonly Scenario[] = [
  { title: '1 thread, busy', processes: 1, threads: 1, repetitions: 15 },
  { title: '100 threads, 1 busy', processes: 1, threads: 100, repetitions: 15 },
  { title: '1,000 threads, 1 busy', processes: 1, threads: 1000, repetitions: 9 },
  { title: '200 processes, idle', processes: 200, threads: 0, repetitions: 5 },
];

const asJson = process.argv.includes('--json');

const progress = (text: string): void => void process.stderr.write(`bench: ${text}\n`);

/** Their private dirty memory once all threads have started and touched their stacks, KiB. */
async function settledDirty(programs: readonly Program[]): Promise<number> {
  for (let before = NaN; ;) {
    const now = privateDirty(programs);
    if (now === before) return now;
    before = now;
    await sleep(300);
  }
}

async function runScenario(
  bench: Bench,
  scenario: Scenario,
  environment: Record<string, string>,
): Promise<Sample[]> {
  const programs: Program[] = [];
  try {
    while (programs.length < scenario.processes) {
      const parameters = [String(scenario.threads)];
      const program = await Program.start(fixtureProgram('bench/threads'), parameters, { environment });
      programs.push(program);
      await program.waitForLine(/^ready$/);
    }
    const samples: Sample[] = [];
    const dirtyBefore = await settledDirty(programs);
    const measure = (): Promise<Sample> => measureUpdate(bench, programs, scenario.threads > 0, dirtyBefore);
    // The first run warms caches of files and pages; it does not count.
    await measure();
    while (samples.length < scenario.repetitions) samples.push(await measure());
    return samples;
  } finally {
    await Promise.all(programs.map((program) => program.end()));
  }
}

async function main(): Promise<void> {
  progress('making the patch');
  const built = await buildOpensslPatch(['CVE-2026-22796'], progress);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-bench-'));
  try {
    const host = await LocalHost.create(directory, [built.file]);
    const rows: Row[] = [];
    for (const scenario of scenarios) {
      progress(scenario.title);
      const bench = { root: host.root, directory };
      const samples = await runScenario(bench, scenario, opensslEnvironment(built.unpacked));
      rows.push(summarize(scenario.title, samples, rows[0]));
    }
    process.stdout.write(asJson ? `${JSON.stringify(rows, undefined, 2)}\n` : `${formatTable(rows)}\n`);
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

await main();
