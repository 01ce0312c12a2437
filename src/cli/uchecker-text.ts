// The report of kcare-uchecker for people; the lines of findings are those that users of such scanners know.
import type { KcareError } from '../base/errors.js';
import type { OutdatedObject, OutdatedProcess, ScanReport } from '../checker/index.js';

const mostCves = 6;

export function ucheckerText(report: ScanReport): string[] {
  const findings = report.processes.flatMap((process) =>
    process.objects.map(
      ({ name, patchable }) =>
        `${patchable ? '[*]' : '[ ]'} Process ${nameOf(process)} linked to the \`${name}\` that is not up to date.`,
    ),
  );
  return [
    ...findings,
    ...(findings.length > 0 ? ['', ...explanations(report.processes), '', ...advice(report.processes)] : []),
    ...missing(report),
    ...(findings.length > 0 ? [''] : []),
    summary(report),
  ];
}

function nameOf({ comm, pid, container }: OutdatedProcess): string {
  return `${comm}[${pid}]${container === undefined ? '' : ` in container ${container}`}`;
}

/** Once for each object and distribution, however many processes run it. */
function explanations(processes: readonly OutdatedProcess[]): string[] {
  const groups = new Map<string, { readonly lines: readonly string[]; count: number }>();
  for (const process of processes) {
    for (const object of process.objects) {
      const lines = explain(object, process);
      const group = groups.get(lines.join('\n'));
      if (group) group.count++;
      else groups.set(lines.join('\n'), { lines, count: 1 });
    }
  }
  return [...groups.values()].flatMap(({ lines: [first = '', ...rest], count }) => [
    `${first} (${count} process${count === 1 ? '' : 'es'})`,
    ...rest.map((line) => `    ${line}`),
  ]);
}

function explain(object: OutdatedObject, { distribution }: OutdatedProcess): string[] {
  const { reasons, level, knownLevel, cves, installedVersion, fixedVersion } = object;
  const where = distribution ? `, ${distribution.name}` : '';
  const lines = [`${object.path}, build-id ${object.buildId || 'none'}${where}`];
  const running = object.runningVersion === undefined ? '' : `; it runs ${object.runningVersion}`;
  const named = object.package === undefined ? 'the package' : object.package;
  const installed = installedVersion === undefined ? 'another build' : `${named} ${installedVersion}`;
  if (reasons.includes('replaced')) lines.push(`replaced on disk: ${installed} is installed${running}.`);
  if (reasons.includes('deleted')) lines.push('deleted from disk: its package was upgraded or removed.');
  if (reasons.includes('fix-known')) {
    const applied = level === 0 ? 'no patch is applied' : `level ${level} is applied`;
    const fixed = fixedVersion === undefined ? '' : `, as in ${named} ${fixedVersion}`;
    lines.push(`a patch of level ${knownLevel ?? 0} is known${fixed}; ${applied}${running}.`);
    const more = cves.length > mostCves ? ` and ${cves.length - mostCves} more` : '';
    if (cves.length > 0) lines.push(`not fixed: ${cves.slice(0, mostCves).join(', ')}${more}`);
  }
  if (object.installedIsOutdated) lines.push('what is installed now is itself not up to date.');
  return lines;
}

function advice(processes: readonly OutdatedProcess[]): string[] {
  const objects = processes.flatMap((process) => process.objects);
  const lines: string[] = [];
  if (objects.some(({ patchable }) => patchable))
    lines.push('Marked [*]: LibCare can patch them without a restart: kcarectl --lib-update');
  if (objects.some(({ patchable }) => !patchable))
    lines.push('Marked [ ]: restart these processes, so that they load what is installed.');
  if (
    objects.some(({ reasons, installedIsOutdated }) => installedIsOutdated === true || isOldOnDisk(reasons))
  )
    lines.push('Update the packages as well: processes that start later load what is on disk.');
  return lines;
}

/** The file on disk is the one that is executed, and there is a fix for it. */
function isOldOnDisk(reasons: OutdatedObject['reasons']): boolean {
  return reasons.length === 1 && reasons[0] === 'fix-known';
}

function missing({ problems, unexamined }: ScanReport): string[] {
  const reasons = new Map<string, number[]>();
  for (const { pid, error } of unexamined) {
    const reason =
      error.code === 'NOT_PERMITTED' ? 'this user may not look at them' : error.message.replace(/\.$/, '');
    reasons.set(reason, [...(reasons.get(reason) ?? []), pid]);
  }
  const lines = [...reasons].map(
    ([reason, pids]) =>
      `Not examined: ${pids.length} process${pids.length === 1 ? '' : 'es'} (${list(pids)}): ${reason}.`,
  );
  const all = [...problems.map(problemLine), ...lines];
  return all.length === 0 ? [] : ['', ...all];
}

function problemLine({ message, hint }: KcareError): string {
  return `Not looked at: ${message} ${hint}`;
}

function list(pids: readonly number[]): string {
  const most = 10;
  return `${pids.slice(0, most).join(', ')}${pids.length > most ? ', …' : ''}`;
}

function summary({ status, complete, processes, examined, feed }: ScanReport): string {
  const extent = `${examined.files} files in ${examined.processes} processes`;
  const containers = examined.containers === 0 ? '' : ` and ${examined.containers} other mount namespaces`;
  const fixes =
    feed === null ? 'no feed' : `${feed.fixes} known fixes of patchset ${feed.patchset || '(none)'}`;
  const basis = `${extent}${containers} were compared with what is installed and with ${fixes}.`;
  if (status === 'outdated') {
    const count = `${processes.length} process${processes.length === 1 ? '' : 'es'}`;
    const rest = complete ? '' : ' The scan is not complete, there may be more.';
    return `${count} execute${processes.length === 1 ? 's' : ''} what is not up to date; ${basis}${rest}`;
  }
  if (status === 'incomplete')
    return `Not complete: nothing outdated was found, but not everything could be looked at; ${basis}`;
  return `It looks OK: no outdated libraries were found; ${basis}`;
}
