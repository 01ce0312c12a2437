// The benchmark: what a real patch costs targets of 1 to 1,000 threads, 200 and 1,000 processes; what making one takes;
// what a scan takes; how soon new processes are patched.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalHost } from '../fixtures/support/local-host.js';
import { fixtureProgram, opensslEnvironment } from '../fixtures/support/openssl.js';
import { buildOpensslPatch } from '../fixtures/support/patches.js';
import { Program } from '../fixtures/support/program.js';
import { formatCallCost, measureCallCost, type CallCost } from './call-cost.js';
import { formatChecker, measureChecker } from './checker.js';
import { formatDay, measureDay } from './day.js';
import { leaveOutExtraCertificates } from './environment.js';
import { formatFactory, measureFactory } from './factory.js';
import { measureUpdate, privateDirty, type Bench, type Sample } from './measure.js';
import { formatService, measureService } from './service.js';
import { formatTable, summarize, type Row } from './summary.js';

interface Scenario {
  readonly title: string;
  readonly processes: number;
  /** Per process, one of them busy; 0: a single idle one. */
  readonly threads: number;
  readonly repetitions: number;
}

const scenarios: readonly Scenario[] = [
  { title: '1 thread', processes: 1, threads: 1, repetitions: 15 },
  { title: '10 threads', processes: 1, threads: 10, repetitions: 15 },
  { title: '100 threads', processes: 1, threads: 100, repetitions: 15 },
  { title: '1000 thr.', processes: 1, threads: 1000, repetitions: 9 },
  { title: '200 proc.', processes: 200, threads: 0, repetitions: 5 },
  { title: '1000 proc.', processes: 1000, threads: 0, repetitions: 3 },
];

/** A target with its share of page tables and pipes, and what the machine needs besides. */
const mebibytesPerProcess = 4;
const mebibytesToSpare = 1024;

const asJson = process.argv.includes('--json');

const progress = (text: string): void => void process.stderr.write(`bench: ${text}\n`);

function hasRoomFor({ processes }: Scenario): boolean {
  const field = /^MemAvailable: +(\d+) kB$/m.exec(fs.readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return Number(field) / 1024 > processes * mebibytesPerProcess + mebibytesToSpare;
}

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

async function measureEngine(): Promise<{ rows: Row[]; calls: CallCost }> {
  progress('making the patch');
  const built = await buildOpensslPatch(['CVE-2026-22796'], progress);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-bench-'));
  try {
    const host = await LocalHost.create(directory, [built.file]);
    const rows: Row[] = [];
    for (const scenario of scenarios) {
      if (!hasRoomFor(scenario)) {
        progress(`${scenario.title} SKIPPED: the machine lacks the memory for so many processes`);
        continue;
      }
      progress(scenario.title);
      const bench = { root: host.root, directory };
      const samples = await runScenario(bench, scenario, opensslEnvironment(built.unpacked));
      rows.push(summarize(scenario.title, samples, rows[0]));
    }
    return { rows, calls: await measureCallCost() };
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

const legend = 'one thread is busy, the others are idle; processes (proc.) are idle';

const parts = ['engine', 'factory', 'checker', 'service', 'day'] as const;

/** `--only PART` leaves out the others. */
function chosenParts(): readonly (typeof parts)[number][] {
  const place = process.argv.indexOf('--only');
  if (place < 0) return parts;
  const chosen = parts.filter((part) => part === process.argv[place + 1]);
  if (chosen.length === 0) throw new Error(`--only takes one of: ${parts.join(', ')}.`);
  return chosen;
}

async function main(): Promise<void> {
  const chosen = chosenParts();
  const engine = chosen.includes('engine') ? await measureEngine() : undefined;
  const factory = chosen.includes('factory') ? await measureFactory(progress) : undefined;
  const checker = chosen.includes('checker') ? await measureChecker(progress) : undefined;
  const service = chosen.includes('service') ? await measureService(progress) : undefined;
  const day = chosen.includes('day') ? await measureDay(progress) : undefined;
  const texts = [
    ...(engine ? [`${formatTable(engine.rows)}\n(${legend})\n${formatCallCost(engine.calls)}`] : []),
    ...(factory ? [formatFactory(factory)] : []),
    ...(checker ? [formatChecker(checker)] : []),
    ...(service ? [formatService(service)] : []),
    ...(day ? [formatDay(day)] : []),
  ];
  const json = JSON.stringify({ ...engine, factory, checker, service, day }, undefined, 2);
  process.stdout.write(`${asJson ? json : texts.join('\n\n')}\n`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

leaveOutExtraCertificates();
await main();
