// Collects what support needs to know about this host, without secrets.
import { existsSync, readFileSync, readdirSync, statfsSync } from 'node:fs';
import { freemem, release, totalmem, uptime, version as kernelVersion } from 'node:os';
import { configKeys } from '../agent/config.js';
import { openAgent, version, type Agent } from '../agent/index.js';
import { libraryCoverage } from '../agent/known-patches.js';
import { agentPaths, type AgentPaths } from '../agent/paths.js';
import { parseShellSettings } from '../agent/shell-settings.js';
import { asKcareError } from '../base/errors.js';
import { visibleLines } from '../base/visible.js';
import { countStates } from '../host/coverage.js';
import { cveListReport, hostTruth } from './cve-list.js';
import { lastLines } from './last-run.js';
import { osRelease } from './os-release.js';
import { maskSettings, secretsOf, withoutSecrets, type Setting } from './secrets.js';

export interface Section {
  readonly title: string;
  readonly text: string;
}

export interface DoctorReport {
  readonly sections: readonly Section[];
  readonly text: string;
  /** Undefined when the configuration is not valid, which is in the report. */
  readonly agent: Agent | undefined;
}

const longestLog = 256 * 1024;
const longestSection = 512 * 1024;
const mostProcesses = 200;

/** Never throws because of what it finds: what cannot be read is said in its section. Throws USAGE for a wrong root. */
export async function examineHost(root: string): Promise<DoctorReport> {
  const paths = agentPaths(root);
  const settings = readSettings(paths.config);
  const secrets = secretsOf(settings ?? rawSettings(paths.config), configKeys);
  let agent: Agent | undefined;
  const opening = await attempt(async () => {
    agent = await openAgent(root);
    return agent.warnings.join('\n');
  });
  const opened = agent;
  const found: (readonly [string, () => string | Promise<string>])[] = [
    ['Versions', versions],
    ['System', () => system(root)],
    // A value that is not valid may be a secret in the wrong place, of any key.
    ['Configuration', () => configuration(settings, opened ? configKeys : [], opening)],
    ['Disk space', () => diskSpace(paths)],
    ['Keys of publishers', () => listing(paths.keys)],
    ['Feed and vulnerabilities', () => vulnerabilities(opened)],
    ['Processes', () => processes(root)],
    ['Maps of one process that is not patched', () => mapsOfFailing(root)],
    ['Log', () => lastLines(paths.log, longestLog).join('\n')],
  ];
  const sections: Section[] = [];
  for (const [title, write] of found) {
    // Names that processes chose are read on somebody's terminal.
    const text = visibleLines(withoutSecrets(await attempt(async () => await write()), secrets));
    sections.push({ title, text: text.slice(0, longestSection) });
  }
  const text = sections.map((section) => `== ${section.title} ==\n${section.text}\n`).join('\n');
  return { sections, text, agent };
}

async function attempt(action: () => Promise<string>): Promise<string> {
  try {
    return await action();
  } catch (thrown) {
    const { code, message, details } = asKcareError(thrown);
    // The message about a wrong value quotes it, and it may be a secret in the wrong place.
    const where = details['line'];
    if (code === 'CONFIG_INVALID') return `${code}${typeof where === 'number' ? ` in line ${where}` : ''}`;
    return `${code}: ${message}`;
  }
}

function versions(): string {
  return [`kcare ${version()}`, `Node.js ${process.version} (${process.arch})`].join('\n');
}

function system(root: string): string {
  const mebibyte = 1024 * 1024;
  return [
    `Distribution: ${osRelease(root)['PRETTY_NAME'] ?? osRelease('/')['PRETTY_NAME'] ?? 'unknown'}`,
    `Kernel: ${release()} ${kernelVersion()}`,
    `Up for: ${Math.round(uptime())} s`,
    `Memory: ${Math.round(freemem() / mebibyte)} of ${Math.round(totalmem() / mebibyte)} MiB free`,
    `Time: ${new Date().toISOString()}`,
    `User: ${process.geteuid?.() ?? 'unknown'}`,
  ].join('\n');
}

function configuration(
  settings: readonly Setting[] | undefined,
  shown: readonly string[],
  opening: string,
): string {
  const lines = settings
    ? maskSettings(settings, shown).map(({ key, value }) => `${key}=${value}`)
    : ['The file is missing or cannot be parsed.'];
  return [...lines, ...(opening === '' ? [] : [opening])].join('\n');
}

function readSettings(path: string): readonly Setting[] | undefined {
  try {
    return parseShellSettings(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Of a file that cannot be parsed: whatever stands behind an equals sign, so that none of it is shown. */
function rawSettings(path: string): Setting[] {
  try {
    const lines = readFileSync(path, 'utf8').matchAll(/^\s*(?:export\s+)?([^=\n]*)=\s*["']?(.*?)["']?\s*$/gm);
    return [...lines].map(([, key = '', value = '']) => ({ key: key.trim(), value }));
  } catch {
    return [];
  }
}

function diskSpace(paths: AgentPaths): string {
  const mebibyte = 1024 * 1024;
  return [paths.root, paths.cache, paths.log, paths.lock]
    .filter((path) => existsSync(path))
    .map((path) => {
      const { bavail, blocks, bsize, ffree } = statfsSync(path);
      const size = (count: number): number => Math.round((count * bsize) / mebibyte);
      return `${path}: ${size(bavail)} of ${size(blocks)} MiB free, ${ffree} inodes free`;
    })
    .join('\n');
}

function listing(directory: string): string {
  return existsSync(directory) ? readdirSync(directory).join('\n') : 'none';
}

async function vulnerabilities(agent: Agent | undefined): Promise<string> {
  if (!agent) return 'The configuration is not valid.';
  const truth = await hostTruth(agent);
  const { patchset, cves, notListed } = cveListReport(truth);
  const { fixes } = truth;
  return [
    `Patchset: ${patchset ?? 'none'}; confirmed ${fixes.confirmed?.toISOString() ?? 'never'}, expires ${fixes.expires ?? 'never'}`,
    ...(fixes.problem ? [`${fixes.problem.code}: ${fixes.problem.message}`] : []),
    `Fixed: ${cves.join(', ') || 'none'}`,
    ...notListed.map(({ cve, leftBehind }) => `${cve}: left in ${leftBehind.length} places`),
  ].join('\n');
}

async function processes(root: string): Promise<string> {
  const { processes: all, unreadable, problem } = await libraryCoverage(root);
  const states = Object.entries({ ...countStates(all), unreadable: unreadable.length });
  const lines = [
    ...all.map(
      ({ pid, comm, state, reason, images }) =>
        `${pid} ${JSON.stringify(comm)} ${state} ${images.map(({ objectName, level }) => `${objectName}:${level}`).join(',')} ${reason}`,
    ),
    ...unreadable.map(({ pid, comm, error }) => `${pid} ${JSON.stringify(comm)} unreadable ${error.message}`),
  ];
  return [
    states.map(([state, count]) => `${state}: ${count}`).join(', '),
    ...(problem ? [`${problem.code}: ${problem.message}`] : []),
    ...lines.slice(0, mostProcesses),
    ...(lines.length > mostProcesses ? [`and ${lines.length - mostProcesses} more`] : []),
  ].join('\n');
}

/** One that could not be patched says more than one whose turn has not come. */
async function mapsOfFailing(root: string): Promise<string> {
  const { processes: all, unreadable } = await libraryCoverage(root);
  const failing =
    all.find(({ code }) => code !== undefined) ??
    all.find(({ state }) => state === 'unpatchable') ??
    unreadable.find(({ error }) => error.code !== 'NOT_PERMITTED') ??
    all.find(({ state }) => state === 'pending');
  if (!failing) return 'There is none.';
  const { pid, comm } = failing;
  return `${pid} ${JSON.stringify(comm)}\n${readFileSync(`/proc/${pid}/maps`, 'utf8')}`;
}
