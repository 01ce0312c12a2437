// What it takes to make patches: one fix and all of them, with downloaded sources and with a configured tree.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { defaultWorkDirectory } from '../src/build/index.js';
import { packageRoot } from '../src/base/package-root.js';
import { median } from './summary.js';

interface FactoryScenario {
  readonly title: string;
  readonly recipe: string;
  readonly cves: readonly string[];
  /** What of the work directory is there at the start; nothing is fetched in any. */
  readonly kept: readonly string[];
  /** Of what is kept, packages of other names are of no use to the recipe. */
  readonly packages: RegExp;
  readonly aimSeconds: number;
}

const downloaded = ['apt', 'downloads'];
const configured = [...downloaded, 'source', 'binary', 'configured'];
const openssl = { recipe: 'recipes/debian12/openssl.yaml', packages: /^(openssl|libssl3)_/ };
const glibc = { recipe: 'recipes/debian12/glibc.yaml', packages: /^(glibc|libc6|libc6-dbg)_/ };

const scenarios: readonly FactoryScenario[] = [
  {
    title: 'OpenSSL, one fix, sources downloaded',
    ...openssl,
    cves: ['CVE-2025-9230'],
    kept: downloaded,
    aimSeconds: 30,
  },
  {
    title: 'OpenSSL, one fix, tree configured',
    ...openssl,
    cves: ['CVE-2025-9230'],
    kept: configured,
    aimSeconds: 5,
  },
  {
    title: 'OpenSSL, all fixes, sources downloaded',
    ...openssl,
    cves: [],
    kept: downloaded,
    aimSeconds: 90,
  },
  {
    title: 'glibc, all fixes, sources downloaded',
    ...glibc,
    cves: [],
    kept: downloaded,
    aimSeconds: 120,
  },
];
const repetitions = 3;
const aimMebibytes = 1024;

export interface FactoryRow {
  readonly scenario: string;
  readonly repetitions: number;
  readonly seconds: number;
  readonly aimSeconds: number;
  /** Largest resident size of the command with all compilers it runs, MiB. */
  readonly mebibytes: number;
}

/** Resident size of a process and all that descend from it, KiB, as far as they live while this looks. */
function residentOfTree(root: number): number {
  const [parents, sizes] = [new Map<number, number>(), new Map<number, number>()];
  for (const name of fs.readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const status = fs.readFileSync(`/proc/${name}/status`, 'utf8');
      parents.set(Number(name), Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]));
      sizes.set(Number(name), Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0));
    } catch {
      // Ended meanwhile.
    }
  }
  const belongs = (pid: number | undefined, depth = 0): boolean =>
    pid !== undefined && depth < 64 && (pid === root || belongs(parents.get(pid), depth + 1));
  return [...sizes].reduce((sum, [pid, size]) => (belongs(pid) ? sum + size : sum), 0);
}

async function runBuild(
  { recipe, cves }: FactoryScenario,
  work: string,
): Promise<{ seconds: number; kibibytes: number }> {
  const words = [path.join(packageRoot(), 'bin/kcare-build'), 'recipe', recipe, '--work', work, '--json'];
  const begin = performance.now();
  const child = spawn(process.execPath, [...words, ...cves.flatMap((id) => ['--cve', id])], {
    cwd: packageRoot(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let [kibibytes, messages] = [0, ''];
  child.stderr.setEncoding('utf8').on('data', (text: string) => (messages += text));
  const look = setInterval(() => (kibibytes = Math.max(kibibytes, residentOfTree(child.pid ?? 0))), 100);
  try {
    const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
    if (status !== 0) throw new Error(`${recipe} ended with status ${status}: ${messages.slice(-2000)}`);
  } finally {
    clearInterval(look);
  }
  return { seconds: (performance.now() - begin) / 1000, kibibytes };
}

function copyKept({ kept, packages }: FactoryScenario, full: string, work: string): void {
  for (const name of kept) {
    const target = path.join(work, name);
    fs.mkdirSync(target);
    for (const entry of fs.readdirSync(path.join(full, name)))
      if (name === 'apt' || packages.test(entry))
        execFileSync('cp', ['--archive', path.join(full, name, entry), target]);
  }
}

/** Builds each once, to have everything downloaded, then measures in work directories that hold only what is kept. */
export async function measureFactory(progress: (text: string) => void): Promise<FactoryRow[]> {
  const rows: FactoryRow[] = [];
  const full = defaultWorkDirectory();
  for (const scenario of scenarios) {
    progress(scenario.title);
    await runBuild(scenario, full);
    const samples = [];
    while (samples.length < repetitions) {
      const work = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-bench-work-'));
      try {
        copyKept(scenario, full, work);
        samples.push(await runBuild(scenario, work));
      } finally {
        fs.rmSync(work, { recursive: true, force: true });
      }
    }
    rows.push({
      scenario: scenario.title,
      repetitions,
      seconds: median(samples.map(({ seconds }) => seconds)),
      aimSeconds: scenario.aimSeconds,
      mebibytes: Math.max(...samples.map(({ kibibytes }) => kibibytes)) / 1024,
    });
  }
  return rows;
}

export function formatFactory(rows: readonly FactoryRow[]): string {
  const base = rows[0]?.seconds ?? NaN;
  return [
    `making patches: medians of ${repetitions} runs (× first), and the largest resident size (aim ≤ ${aimMebibytes} MiB)`,
    ...rows.map(
      ({ scenario, seconds, aimSeconds, mebibytes }) =>
        `${scenario.padEnd(40)}  ${seconds.toFixed(1).padStart(6)} s ×${(seconds / base).toFixed(2)}  aim ≤ ${String(aimSeconds).padStart(3)} s  ${mebibytes.toFixed(0).padStart(5)} MiB`,
    ),
  ].join('\n');
}
