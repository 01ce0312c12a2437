// Numbers about this host for monitoring.
import { libraryCoverage } from '../agent/known-patches.js';
import { version, type Agent } from '../agent/index.js';
import { countStates } from '../host/coverage.js';
import type { HostTruth } from './cve-list.js';
import { lastRun } from './last-run.js';
import { isFixed } from './verdicts.js';

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** All are gauges; one of which nothing is known has no samples. Units are in the names, as Prometheus wants. */
export async function hostMetrics(agent: Agent, truth: HostTruth): Promise<Metric[]> {
  const { fixes, survey, verdicts } = truth;
  const { processes, unreadable } = await libraryCoverage(agent.paths.root);
  const states = { ...countStates(processes), unreadable: unreadable.length };
  const run = lastRun(agent.paths.log);
  const nanosecond = 1e-9;
  return [
    gauge('kcare_build_info', 'The version of kcare.', [{ labels: { version: version() }, value: 1 }]),
    gauge('kcare_scan_timestamp_seconds', 'When these numbers were taken.', one(seconds(survey.taken))),
    gauge(
      'kcare_processes',
      'Processes that patches concern, by state; unreadable: nothing is known about them.',
      byLabel('state', states),
    ),
    gauge(
      'kcare_object_processes',
      'Processes that map an object for which there are patches, by the level in effect; 0: not patched.',
      objectLevels(truth),
    ),
    gauge(
      'kcare_object_available_level',
      'The level that the feed offers for an object that processes map.',
      availableLevels(truth),
    ),
    gauge(
      'kcare_cves',
      'Vulnerabilities known to the feed: fixed in all processes that they concern, or not in some.',
      byLabel('status', {
        fixed: verdicts.filter(isFixed).length,
        left_behind: verdicts.filter(({ leftBehind }) => leftBehind.length > 0).length,
      }),
    ),
    gauge(
      'kcare_images_kept',
      'Removed patches of which memory is still mapped in processes.',
      one(survey.processes.flatMap(({ images }) => images).filter(({ state }) => state === 'removed').length),
    ),
    gauge(
      'kcare_feed_info',
      'The patchset that this host follows.',
      fixes.patchset === undefined ? [] : [{ labels: { patchset: fixes.patchset }, value: 1 }],
    ),
    gauge(
      'kcare_feed_metadata_age_seconds',
      'Time since the metadata of the feed was fetched, or found to be unchanged.',
      fixes.confirmed ? one(Math.max(0, seconds(survey.taken) - seconds(fixes.confirmed))) : [],
    ),
    gauge(
      'kcare_feed_metadata_expiry_timestamp_seconds',
      'When the metadata of the feed expires.',
      fixes.expires === undefined ? [] : one(seconds(new Date(fixes.expires))),
    ),
    gauge(
      'kcare_last_run_timestamp_seconds',
      'When the last update or unload ended.',
      run ? [{ labels: { command: run.command }, value: seconds(new Date(run.time)) }] : [],
    ),
    gauge('kcare_last_run_exit_code', 'Its exit code.', run ? one(run.exitCode) : []),
    gauge('kcare_last_run_processes', 'Its processes, by outcome.', byLabel('outcome', run?.outcomes ?? {})),
    gauge(
      'kcare_last_run_pause_seconds',
      'The longest time for which it stopped threads of one process: running ones, and any.',
      run
        ? byLabel('threads', {
            running: run.pauseNs.running * nanosecond,
            any: run.pauseNs.longest * nanosecond,
          })
        : [],
    ),
  ];
}

/** The text format of Prometheus, version 0.0.4, without times, as the textfile collector of node_exporter wants. */
export function metricsText(metrics: readonly Metric[]): string {
  return metrics
    .filter(({ samples }) => samples.length > 0)
    .flatMap(({ name, help, samples }) => [
      `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`,
      `# TYPE ${name} gauge`,
      ...samples.map(({ labels, value }) => `${name}${labelsText(labels)} ${value}`),
    ])
    .map((line) => `${line}\n`)
    .join('');
}

function labelsText(labels: Sample['labels']): string {
  const pairs = Object.entries(labels).map(([key, value]) => {
    const escaped = value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
    return `${key}="${escaped}"`;
  });
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function gauge(name: string, help: string, samples: readonly Sample[]): Metric {
  return { name, help, samples };
}

function one(value: number): Sample[] {
  return [{ labels: {}, value }];
}

function seconds(date: Date): number {
  return date.getTime() / 1000;
}

function byLabel(label: string, values: Readonly<Record<string, number>>): Sample[] {
  return Object.entries(values).map(([key, value]) => ({
    labels: { [label]: key.replaceAll('-', '_') },
    value,
  }));
}

function objectLevels({ survey }: HostTruth): Sample[] {
  const counts = new Map<string, { labels: Sample['labels']; value: number }>();
  for (const { objects } of survey.processes) {
    const levels = objects.flatMap(({ entry, image, buildId }) => {
      if (!entry) return [];
      const level = image?.state === 'active' ? image.level : 0;
      return [{ object: entry.objectName, build_id: buildId, package: entry.package, level: String(level) }];
    });
    // A library that is mapped twice counts once for each of its levels.
    for (const labels of new Map(levels.map((one) => [JSON.stringify(one), one])).values()) {
      const key = JSON.stringify(labels);
      counts.set(key, { labels, value: (counts.get(key)?.value ?? 0) + 1 });
    }
  }
  return [...counts.values()];
}

function availableLevels({ survey }: HostTruth): Sample[] {
  const entries = survey.processes.flatMap(({ objects }) => objects.flatMap(({ entry }) => entry ?? []));
  return [...new Map(entries.map((entry) => [entry.buildId, entry])).values()].map((entry) => ({
    labels: { object: entry.objectName, build_id: entry.buildId, package: entry.package },
    value: entry.level,
  }));
}
