// What kcarectl prints for updates by policy, for turning LibCare on and off, and for the blacklist's answer.
import {
  auditRules,
  disableLibcare,
  enableLibcare,
  libAutoUpdate,
  openAgent,
  testBlacklist,
  type BlacklistAnswer,
  type LibraryOptions,
  type ServiceChange,
} from '../agent/index.js';
import { exitCodes } from '../base/errors.js';
import { refreshCveList } from './keeping-cve-list.js';
import { libraryJson } from './library-json.js';
import { libraryText } from './library-text.js';
import { usualJitterSeconds, type PolicyAction } from './policy-options.js';
import { printJson, printLine, printWarnings } from './print.js';

export interface PolicyRun {
  readonly root: string;
  readonly json?: true;
  readonly library: LibraryOptions;
}

export async function runPolicy(
  action: Exclude<PolicyAction, { kind: 'smart-update' }>,
  run: PolicyRun,
): Promise<number> {
  switch (action.kind) {
    case 'auto-update':
      return await runAutoUpdate(action.jitter, run);
    case 'enable':
    case 'disable': {
      const agent = await openAgent(run.root);
      const change = await (action.kind === 'enable' ? enableLibcare : disableLibcare)(agent);
      printWarnings(await refreshCveList(run.root));
      if (run.json) {
        printJson(change);
      } else {
        printWarnings([...agent.warnings, ...agent.logProblems()]);
        serviceText(change).forEach(printLine);
      }
      return change.exitCode;
    }
    case 'audit-rules': {
      const rules = auditRules();
      if (run.json) printJson({ rules });
      else process.stdout.write(rules);
      return exitCodes.done;
    }
    case 'blacklist-test': {
      const answer = await testBlacklist(run.root, action.subject);
      if (run.json) {
        printJson(answer);
      } else {
        printWarnings(answer.warnings);
        printLine(blacklistText(answer));
      }
      return answer.isBlacklisted ? exitCodes.refused : exitCodes.done;
    }
  }
}

async function runAutoUpdate(
  jitter: number | undefined,
  { root, json, library }: PolicyRun,
): Promise<number> {
  const isWatched = process.stdout.isTTY;
  const jitterMs = (jitter ?? (isWatched ? 0 : usualJitterSeconds)) * 1000;
  const update = await libAutoUpdate(root, { ...library, jitterMs });
  if (update.kind === 'skipped') {
    if (json) printJson({ skipped: update.reason, exitCode: exitCodes.done });
    else if (isWatched) printLine(`Nothing was done: ${update.reason}`);
    return exitCodes.done;
  }
  const { result, isNews } = update;
  if (!result.dryRun) printWarnings(await refreshCveList(root));
  if (json) {
    printJson(libraryJson(result));
  } else if (isNews || isWatched) {
    printWarnings(result.warnings);
    libraryText('update', result).forEach(printLine);
  }
  return result.exitCode;
}

function serviceText({ enabled, steps, exitCode }: ServiceChange): string[] {
  const lines = steps.map(
    ({ step, result, detail }) => `${step}: ${result}${detail === undefined ? '' : ` (${detail})`}`,
  );
  const state = `LibCare is turned ${enabled ? 'on' : 'off'}`;
  return [...lines, exitCode === exitCodes.done ? `${state}.` : `${state}, but some steps have failed.`];
}

function blacklistText({ executable, pid, rule, file }: BlacklistAnswer): string {
  const subject = pid === undefined ? executable : `Process ${pid} (${executable})`;
  if (!rule) return `${subject} is not blacklisted${file === '' ? '' : ` by ${file}`}.`;
  const why = rule.reason === '' ? '' : ` (${rule.reason})`;
  return `${subject} is blacklisted by "${rule.text}"${why}, line ${rule.line} of ${rule.file}.`;
}
