// A day of libcare-server in fast motion: the feed changes its level again and again while processes come and go. What
// grows shows: memory of the server, its open files, and mappings of targets that live all the while.
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { handmadePatch, returns } from '../fixtures/support/handmade.js';
import { compileNewcomers, compileStorm, sightings, WatchedHost } from '../fixtures/support/newcomers.js';
import { readMappings } from '../fixtures/support/process-memory.js';
import { Program } from '../fixtures/support/program.js';
import { writePatch } from '../src/patchfile/index.js';

const changes = 100;
/** What is used once is there by then. */
const settledAfter = 10;
const residents = 5;
const perSecond = 40;
const secondsForChange = 3;

interface Sizes {
  readonly mib: number;
  readonly files: number;
  /** Of all residents together. */
  readonly mappings: number;
}

export interface DayResult {
  readonly changes: number;
  readonly seconds: number;
  readonly settled: Sizes;
  readonly end: Sizes;
  /** Processes that came and went, and those of them that saw an answer that no level gives. */
  readonly passers: number;
  readonly wrong: number;
  /** Residents that do not give the answer of the last level at the end. */
  readonly stale: number;
  readonly complaints: string;
}

const valueAt = (level: number): number => 43 + (level % 50);

function writeLevel(host: WatchedHost, level: number): string {
  const file = join(host.directory, `level-${level}.kpatch`);
  writeFileSync(file, writePatch(handmadePatch(host.library, level, { answer: returns(valueAt(level)) })));
  return file;
}

async function sizesOf(host: WatchedHost, programs: readonly Program[]): Promise<Sizes> {
  const status = await host.status();
  if (!status) throw new Error('libcare-server does not answer.');
  return {
    mib: status.memoryBytes / 1024 / 1024,
    files: readdirSync(`/proc/${status.pid}/fd`).length,
    mappings: programs.reduce((sum, { pid }) => sum + readMappings(pid).length, 0),
  };
}

export async function measureDay(progress: (text: string) => void): Promise<DayResult> {
  const today = new Date();
  const yesterday = new Date(today.getTime() - 86_400_000);
  const host = await WatchedHost.start(yesterday);
  const programs: Program[] = [];
  try {
    const { early, late } = compileNewcomers(host.directory, host.library);
    const storm = compileStorm(host.directory);
    while (programs.length < residents) {
      const program = await Program.start(host.program);
      programs.push(program);
      await program.waitForLine(/^ready/);
    }
    const rate = [`${perSecond}`, `${changes * secondsForChange}`, early, late];
    const passing = host.collect(storm, rate);
    const begin = performance.now();
    let settled: Sizes | undefined;
    for (let change = 1; change <= changes; change++) {
      if (change % 10 === 0) progress(`level ${change} of ${changes}`);
      // A day has 99 names of patchsets.
      const when = change < changes / 2 ? yesterday : today;
      await host.host.publish([writeLevel(host, change + 1)], when);
      await host.host.kcarectl('--lib-update');
      if (change === settledAfter) settled = await sizesOf(host, programs);
    }
    const seconds = (performance.now() - begin) / 1000;
    const end = await sizesOf(host, programs);
    const { stdout, stderr } = await passing.stop();
    const known = new Set([42, ...Array.from({ length: 50 }, (_, level) => valueAt(level))]);
    const all = sightings(stdout);
    let stale = 0;
    for (const program of programs) {
      program.writeLine('answer');
      if ((await program.waitForLine(/^answer /)) !== `answer ${valueAt(changes + 1)}`) stale++;
    }
    return {
      changes,
      seconds,
      settled: settled ?? end,
      end,
      passers: all.length,
      wrong: all.filter(({ answer }) => !known.has(answer)).length,
      stale,
      complaints: stderr.trim(),
    };
  } finally {
    await Promise.all(programs.map((program) => program.end()));
    await host.end();
  }
}

export function formatDay({
  changes: count,
  seconds,
  settled,
  end,
  passers,
  wrong,
  stale,
  complaints,
}: DayResult): string {
  const sizes = ({ mib, files, mappings }: Sizes): string =>
    `server ${mib.toFixed(0)} MiB, ${files} open files; ${residents} residents ${mappings} mappings`;
  return [
    `a day in fast motion: ${count} levels in ${seconds.toFixed(0)} s, ${passers} processes with the library came and went`,
    `after ${settledAfter} levels: ${sizes(settled)}`,
    `after ${count} levels: ${sizes(end)}`,
    `${wrong} wrong answers, ${stale} residents without the last level${complaints === '' ? ', all ended well' : `\n${complaints}`}`,
  ].join('\n');
}
