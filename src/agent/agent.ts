// The agent opened for one command: paths, checked config, log.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { readSafeFile, safeDirectory } from '../base/safe-files.js';
import { KcareError } from '../base/errors.js';
import { Blacklist } from '../host/index.js';
import { defaultConfig, parseConfig, type AgentConfig } from './config.js';
import { openLog, type Logger } from './log.js';
import { agentPaths, type AgentPaths } from './paths.js';

export interface Settings {
  readonly paths: AgentPaths;
  readonly config: AgentConfig;
  /** What is wrong but does not stop the run; shown to the user with the result. */
  readonly warnings: readonly string[];
}

export interface Agent extends Settings {
  readonly logger: Logger;
  /** What has kept lines of the log from being written so far, for the user. */
  readonly logProblems: () => readonly string[];
}

/** Throws USAGE, CONFIG_INVALID, UNSAFE_MODE (R10). */
export async function openAgent(root: string): Promise<Agent> {
  const settings = await readSettings(root);
  const { log } = settings.paths;
  const { logger, problem } = openLog(log);
  return {
    ...settings,
    logger,
    logProblems: () => {
      const text = problem();
      return text === undefined ? [] : [`The log ${log} cannot be written: ${text}`];
    },
  };
}

/** Paths and checked config, for commands that only look: no log is made. Throws as {@link openAgent}. */
export async function readSettings(root: string): Promise<Settings> {
  const paths = agentPaths(root);
  const text = await readIfPresent(paths.config);
  const { config, warnings } =
    text === undefined ? { config: defaultConfig, warnings: [] } : readConfig(paths.config, text);
  return {
    paths,
    config,
    warnings: warnings.map(({ line, message }) => `${paths.config}, line ${line}: ${message}`),
  };
}

/** The blacklist that counts, and warnings for the lines that were left out. Throws UNSAFE_MODE (R10). */
export async function openBlacklist(
  paths: AgentPaths,
): Promise<{ readonly blacklist: Blacklist; readonly warnings: readonly string[] }> {
  for (const file of paths.blacklists) {
    const text = await readIfPresent(file);
    if (text === undefined) continue;
    const blacklist = Blacklist.parse(text, file);
    return {
      blacklist,
      warnings: blacklist.problems.map(({ line, message }) => `${file}, line ${line}: ${message}`),
    };
  }
  return { blacklist: Blacklist.empty, warnings: [] };
}

/** R10: a file counts only when nobody but root, or the user running this, can change or replace it. */
async function readIfPresent(path: string): Promise<string | undefined> {
  if (!existsSync(path)) return undefined;
  await safeDirectory(dirname(path));
  return (await readSafeFile(path)).toString('utf8');
}

function readConfig(path: string, text: string): ReturnType<typeof parseConfig> {
  try {
    return parseConfig(text);
  } catch (thrown) {
    if (!(thrown instanceof KcareError)) throw thrown;
    throw new KcareError(thrown.code, `${path}: ${thrown.message}`, { ...thrown.details, path });
  }
}
