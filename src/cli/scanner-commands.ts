// What kcarectl tells scanners, monitoring and support: --lib-cvelist, --vex, --oval, --metrics, --doctor.
import { openAgent, version, type Agent } from '../agent/index.js';
import { asKcareError, exitCodes, type KcareError } from '../base/errors.js';
import { visibleLines } from '../base/visible.js';
import {
  cveListReport,
  examineHost,
  hostMetrics,
  hostTruth,
  keepReport,
  knownFixes,
  metricsText,
  osRelease,
  ovalDocument,
  reportUrl,
  uploadReport,
  vexDocument,
  writeCveList,
  type CveListReport,
  type HostTruth,
} from '../scanner/index.js';
import type { KcarectlOptions, ReportKind } from './kcarectl-options.js';
import { writeOutput } from './output-file.js';
import { printJson, printLine, printWarnings } from './print.js';

export async function runReport(kind: ReportKind, options: KcarectlOptions): Promise<number> {
  if (kind === 'doctor') return await runDoctor(options);
  const agent = await openAgent(options.root);
  switch (kind) {
    case 'cve-list':
      return await runCveList(agent, options);
    case 'vex':
      return await runVex(agent, options);
    case 'oval':
      return await runOval(agent, options);
    case 'metrics':
      return await runMetrics(agent, options);
  }
}

/** With --pid only about these processes, which says nothing about the host: the file stays as it is. */
async function runCveList(agent: Agent, { pid, json }: KcarectlOptions): Promise<number> {
  const truth = pid ? await hostTruth(agent, pid) : await writeCveList(agent);
  const report = cveListReport(truth);
  if (json) {
    printJson(report);
  } else {
    printWarnings([...report.warnings, ...unreadableText(report), ...notListedText(report)]);
    report.cves.forEach(printLine);
  }
  return exitCodeOf(truth);
}

async function runVex(agent: Agent, options: KcarectlOptions): Promise<number> {
  const truth = await hostTruth(agent, options.pid);
  printWarnings(truth.warnings);
  const document = JSON.stringify(vexDocument(agent, truth), undefined, 2);
  await deliver(`${visibleLines(document)}\n`, options);
  return exitCodeOf(truth);
}

/** What is known of the feed, for this distribution. */
async function runOval(agent: Agent, options: KcarectlOptions): Promise<number> {
  const fixes = await knownFixes(agent);
  if (fixes.problem) throw fixes.problem;
  const { ID = 'debian', VERSION_ID = '12' } = osRelease(agent.paths.root);
  const { xml, leftOut } = ovalDocument([...fixes.byBuildId.values()], {
    distribution: ID,
    distributionVersion: VERSION_ID,
    timestamp: new Date(),
    productVersion: version(),
  });
  printWarnings([...agent.warnings, ...leftOutText(leftOut)]);
  await deliver(xml, options);
  return exitCodes.done;
}

/** R6 */
export function leftOutText(leftOut: readonly string[]): string[] {
  return leftOut.length === 0 ? [] : [`no definition for what OVAL cannot name: ${leftOut.join(', ')}`];
}

async function runMetrics(agent: Agent, options: KcarectlOptions): Promise<number> {
  const truth = await hostTruth(agent);
  const metrics = await hostMetrics(agent, truth);
  printWarnings(truth.warnings);
  await deliver(options.json ? `${JSON.stringify({ metrics })}\n` : metricsText(metrics), options);
  return exitCodeOf(truth);
}

function exitCodeOf({ fixes, survey }: HostTruth): number {
  if (fixes.problem) return fixes.problem.exitCode;
  return survey.unreadable.length > 0 ? exitCodes.partial : exitCodes.done;
}

/** Works without a valid configuration: that is when support is asked. */
async function runDoctor({ root, json }: KcarectlOptions): Promise<number> {
  const say = json ? (): void => undefined : printLine;
  say('Generating report...');
  const { text, sections, agent } = await examineHost(root);
  const url = agent && reportUrl(agent);
  let failure: KcareError | undefined;
  if (agent && url) {
    say('Uploading...');
    try {
      const key = await uploadReport(agent, url, text);
      say(`Key: ${key}`);
      say('Please, provide above mentioned key to KernelCare Support Team');
      if (json) printJson({ key, file: null, sections });
      return exitCodes.done;
    } catch (thrown) {
      failure = asKcareError(thrown);
    }
  }
  const file = await keepReport(root, text);
  if (json) printJson({ key: null, file, sections, ...(failure && { error: failure.toJSON() }) });
  if (failure) printWarnings([failure.message]);
  say(`The report is in ${file}; please send it to KernelCare Support Team.`);
  return failure ? failure.exitCode : exitCodes.done;
}

/** Prints a document, or writes it to the file of --output. */
export async function deliver(document: string, { output }: { readonly output?: string }): Promise<void> {
  if (output === undefined) process.stdout.write(document);
  else await writeOutput(output, document);
}

const mostNamed = 3;

function unreadableText({ errors = [] }: CveListReport): string[] {
  const named = errors.slice(0, mostNamed).map(({ error }) => error.message);
  const more = errors.length > mostNamed ? [`and ${errors.length - mostNamed} more.`] : [];
  return errors.length === 0 ? [] : [`nothing counts as fixed: ${[...named, ...more].join(' ')}`];
}

/** Vulnerabilities that the same processes keep open are told together. */
function notListedText({ notListed, errors = [] }: CveListReport): string[] {
  if (errors.length > 0) return [];
  const groups = new Map<string, string[]>();
  for (const { cve, leftBehind } of notListed) {
    const named = leftBehind
      .slice(0, mostNamed)
      .map(({ pid, comm, detail }) => `process ${pid} (${comm === '' ? '?' : comm}): ${detail}`);
    const more = leftBehind.length > mostNamed ? [`and ${leftBehind.length - mostNamed} more.`] : [];
    const reason = [...named, ...more].join(' ');
    groups.set(reason, [...(groups.get(reason) ?? []), cve]);
  }
  return [...groups].map(([reason, cves]) => `not fixed everywhere: ${cves.join(', ')}; ${reason}`);
}
