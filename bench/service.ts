// How soon processes are patched that begin, or load a library, while libcare-server runs; alone and in a storm of them.
import { setTimeout as sleep } from 'node:timers/promises';
import {
  compileNewcomers,
  compileStorm,
  sightings,
  WatchedHost,
  type ServerStatus,
  type Sighting,
} from '../fixtures/support/newcomers.js';
import { median } from './summary.js';

const calmProcesses = 100;
const calmPauseMs = 30;
const idleMs = 10_000;
const stormPerSecond = 500;
const stormSeconds = 60;
/** A process that lives longer is to be patched. */
const longLivedUs = 50_000;
const lifetimeMs = 10_000;
const aims = { medianMs: 10, percentile99Ms: 50, idleMib: 60 };

interface Latency {
  readonly count: number;
  readonly unpatched: number;
  readonly medianMs: number;
  readonly percentile99Ms: number;
}

export interface ServiceResult {
  readonly idle: { readonly seconds: number; readonly cpuMs: number; readonly mib: number };
  readonly starts: Latency;
  readonly loads: Latency;
  readonly storm: Latency & {
    readonly perSecond: number;
    readonly seconds: number;
    /** Share of one processor. */
    readonly cpuShare: number;
    /** Resident size before and after. */
    readonly mib: readonly [before: number, after: number];
    readonly complaints: string;
  };
}

const mebibytes = (bytes: number): number => bytes / 1024 / 1024;

function latencyOf(all: readonly Sighting[]): Latency {
  const times = all.filter(({ answer }) => answer === 43).map(({ afterUs }) => afterUs / 1000);
  const sorted = [...times].sort((left, right) => left - right);
  return {
    count: all.length,
    unpatched: all.length - times.length,
    medianMs: times.length > 0 ? median(times) : NaN,
    percentile99Ms: sorted[Math.ceil(sorted.length * 0.99) - 1] ?? NaN,
  };
}

async function statusOf(host: WatchedHost): Promise<ServerStatus> {
  const status = await host.status();
  if (!status) throw new Error('libcare-server does not answer.');
  return status;
}

async function measureIdle(host: WatchedHost): Promise<ServiceResult['idle']> {
  const before = await statusOf(host);
  await sleep(idleMs);
  const after = await statusOf(host);
  const cpuMs = after.cpuMs - before.cpuMs;
  return { seconds: idleMs / 1000, cpuMs, mib: mebibytes(after.memoryBytes) };
}

async function measureCalm(
  host: WatchedHost,
  program: string,
  parameters: readonly string[],
): Promise<Latency> {
  const all: Sighting[] = [];
  while (all.length < calmProcesses) {
    all.push(...sightings((await host.collect(program, [String(lifetimeMs), ...parameters]).ended).stdout));
    await sleep(calmPauseMs);
  }
  return latencyOf(all);
}

async function measureStorm(host: WatchedHost): Promise<ServiceResult['storm']> {
  const { early, late } = compileNewcomers(host.directory, host.library);
  const storm = compileStorm(host.directory);
  const before = await statusOf(host);
  const begin = performance.now();
  const { stdout, stderr } = await host.collect(storm, [`${stormPerSecond}`, `${stormSeconds}`, early, late])
    .ended;
  const seconds = (performance.now() - begin) / 1000;
  const after = await statusOf(host);
  const longLived = sightings(stdout).filter(({ lifetimeUs }) => lifetimeUs > longLivedUs);
  return {
    ...latencyOf(longLived),
    perSecond: (stormPerSecond * stormSeconds) / seconds,
    seconds,
    cpuShare: (after.cpuMs - before.cpuMs) / 1000 / seconds,
    mib: [mebibytes(before.memoryBytes), mebibytes(after.memoryBytes)],
    complaints: stderr.trim(),
  };
}

export async function measureService(progress: (text: string) => void): Promise<ServiceResult> {
  const host = await WatchedHost.start();
  try {
    const { early, late } = compileNewcomers(host.directory, host.library);
    progress(`libcare-server idle for ${idleMs / 1000} s`);
    const idle = await measureIdle(host);
    progress(`${calmProcesses} processes that begin, and ${calmProcesses} that load a library`);
    const starts = await measureCalm(host, early, []);
    const loads = await measureCalm(host, late, ['', '1', host.library]);
    progress(`${stormPerSecond} processes a second for ${stormSeconds} s`);
    return { idle, starts, loads, storm: await measureStorm(host) };
  } finally {
    await host.end();
  }
}

export function formatService({ idle, starts, loads, storm }: ServiceResult): string {
  const row = (title: string, latency: Latency): string =>
    [
      title.padEnd(38),
      `${latency.medianMs.toFixed(1).padStart(7)} ms`,
      `${latency.percentile99Ms.toFixed(1).padStart(7)} ms`,
      `${latency.unpatched} of ${latency.count} not patched`,
    ].join('  ');
  const [before, after] = storm.mib.map((size) => size.toFixed(0));
  return [
    `libcare-server, from the start of main or of dlopen until the new code runs (median, aim ≤ ${aims.medianMs} ms; 99th percentile, aim ≤ ${aims.percentile99Ms} ms)`,
    row('a process begins', starts),
    row('a process loads the library', loads),
    row(`storm, ${storm.perSecond.toFixed(0)} a second, those over 50 ms`, storm),
    `storm: ${storm.seconds.toFixed(0)} s, ${(storm.cpuShare * 100).toFixed(0)} % of one processor, resident size ${before} → ${after} MiB${storm.complaints === '' ? ', all ended well' : `\n${storm.complaints}`}`,
    `idle: ${idle.cpuMs} ms of processor time in ${idle.seconds} s, resident size ${idle.mib.toFixed(0)} MiB (aim ≤ ${aims.idleMib})`,
  ].join('\n');
}
