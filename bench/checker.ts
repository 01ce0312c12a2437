// What a scan of kcare-uchecker takes with 1,000 processes, beside reading all their maps and nothing more.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { packageRoot } from '../src/base/package-root.js';
import { fixtureProgram } from '../fixtures/support/openssl.js';
import { Program } from '../fixtures/support/program.js';
import { median } from './summary.js';

const processes = 1000;
const repetitions = 15;
const aimMs = { scan: 100, command: 200 };
const reportSchema = z.object({
  scanMs: z.number(),
  complete: z.boolean(),
  examined: z.object({ processes: z.number(), files: z.number() }),
});

export interface CheckerResult {
  readonly processes: number;
  readonly files: number;
  readonly repetitions: number;
  /** Medians, milliseconds: reading all maps; the scan, as the command measures it; the whole command. */
  readonly mapsMs: number;
  readonly scanMs: number;
  readonly commandMs: number;
}

function readAllMaps(): number {
  const begin = performance.now();
  for (const name of fs.readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      fs.readFileSync(`/proc/${name}/maps`);
    } catch {
      // Ended meanwhile, or not to be read.
    }
  }
  return performance.now() - begin;
}

function runChecker(): Promise<{ readonly report: z.infer<typeof reportSchema>; readonly ms: number }> {
  const begin = performance.now();
  const words = [path.join(packageRoot(), 'bin/kcare-uchecker'), '--no-feed', '--json'];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, words, { maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      const ms = performance.now() - begin;
      try {
        resolve({ report: reportSchema.parse(JSON.parse(stdout)), ms });
      } catch (cause) {
        reject(new Error(`kcare-uchecker printed no report: ${stderr}`, { cause: error ?? cause }));
      }
    });
  });
}

export async function measureChecker(progress: (text: string) => void): Promise<CheckerResult> {
  progress(`scan of ${processes} processes`);
  const programs: Program[] = [];
  try {
    while (programs.length < processes) {
      const program = await Program.start(fixtureProgram('bench/threads'), ['0']);
      programs.push(program);
      await program.waitForLine(/^ready$/);
    }
    await runChecker();
    const maps: number[] = [];
    const samples: Awaited<ReturnType<typeof runChecker>>[] = [];
    while (samples.length < repetitions) {
      maps.push(readAllMaps());
      samples.push(await runChecker());
    }
    const examined = samples.map(({ report }) => report.examined);
    return {
      processes: Math.min(...examined.map((count) => count.processes)),
      files: Math.max(...examined.map((count) => count.files)),
      repetitions,
      mapsMs: median(maps),
      scanMs: median(samples.map(({ report }) => report.scanMs)),
      commandMs: median(samples.map(({ ms }) => ms)),
    };
  } finally {
    await Promise.all(programs.map((program) => program.end()));
  }
}

export function formatChecker(result: CheckerResult): string {
  const { mapsMs, scanMs, commandMs } = result;
  const row = (title: string, ms: number, aim: string): string =>
    `${title.padEnd(34)}  ${ms.toFixed(0).padStart(5)} ms ×${(ms / mapsMs).toFixed(2)}  ${aim}`;
  return [
    `kcare-uchecker, ${result.processes} processes with ${result.files} files: medians of ${result.repetitions} runs (× first)`,
    row('reading all maps, and nothing else', mapsMs, ''),
    row('the scan', scanMs, `aim ≤ ${aimMs.scan} ms`),
    row('the whole command', commandMs, `aim ≤ ${aimMs.command} ms`),
  ].join('\n');
}
