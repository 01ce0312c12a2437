// What --lib-update and --lib-unload say to people. The wording of the first lines is the one that users' scripts know.
import type { LibraryResult } from '../agent/index.js';
import { isLeftBehind, summarise, type ProcessOutcome } from '../host/index.js';

export type LibraryCommand = 'update' | 'unload';

/** The lines to print, without line ends. */
export function libraryText(command: LibraryCommand, result: LibraryResult): string[] {
  if (result.dryRun) return dryRunText(result);
  return [
    ...(command === 'update' ? updateHead(result) : unloadHead(result)),
    ...result.processes.flatMap(leftAlone),
    ...result.processes.flatMap(keptMemory),
    ...result.processes.flatMap(unregistered),
    ...result.processes.flatMap(pendingHooks),
    lastLine(command, result),
  ];
}

function updateHead({ processes, patchset }: LibraryResult): string[] {
  const { applied, upgraded, patches, objects } = summarise(processes);
  if (patches === 0 && processes.length === 0) return [nothingToPatch(patchset)];
  const overall = `The overall amount of applied patches is ${patches}.`;
  const first =
    applied > 0
      ? `The patches have been successfully applied to ${count(applied, 'newly discovered process')}.`
      : 'There are no newly discovered processes that could be patched.';
  return [
    `${first} ${overall}`,
    ...(upgraded > 0
      ? [`The patches have been successfully upgraded in ${count(upgraded, 'process')}.`]
      : []),
    ...objects.map(
      ({ name, processes: number }) => `Object \`${name}\` is patched for ${count(number, 'process')}.`,
    ),
  ];
}

function unloadHead({ processes }: LibraryResult): string[] {
  const { unloaded, removed } = summarise(processes);
  if (processes.length === 0) return ['No process is patched.'];
  return [
    `The patches have been removed from ${count(unloaded, 'process')}.`,
    ...removed.map(
      ({ name, processes: number }) => `Object \`${name}\` is unpatched for ${count(number, 'process')}.`,
    ),
  ];
}

function nothingToPatch(patchset: string | undefined): string {
  if (patchset === undefined) return 'The feed has no patchset for this host.';
  return `No running process uses an object that patchset ${patchset} patches.`;
}

/** R6: the last line is cheerful only when nothing was left behind. */
function lastLine(command: LibraryCommand, { processes }: LibraryResult): string {
  const leftBehind = processes.filter(isLeftBehind).length;
  const verb = command === 'update' ? 'applied' : 'unloaded';
  if (leftBehind === 0) return `Userspace patches are ${verb}.`;
  return `Userspace patches are not ${verb} everywhere: ${count(leftBehind, 'process')} left.`;
}

/** Why a process was not touched; nothing for those that are as they should be. */
function leftAlone(outcome: ProcessOutcome): string[] {
  if (outcome.result === 'blacklisted') return [`${named(outcome)} is skipped: ${hindrance(outcome)}`];
  return isLeftBehind(outcome) ? [`${named(outcome)} is not changed: ${hindrance(outcome)}`] : [];
}

/** R6: the code is the original one, but some memory of ours is still there. */
function keptMemory(outcome: ProcessOutcome): string[] {
  return (outcome.kept ?? []).map(
    ({ size, reason }) =>
      `${named(outcome)} keeps ${Math.ceil(size / 1024)} KiB of a removed patch mapped, until a later run: ${sentence(reason)}`,
  );
}

/** R6: the process is patched, but an exception could not pass. */
function unregistered(outcome: ProcessOutcome): string[] {
  return (outcome.unregistered ?? []).map(
    ({ objectName, reason }) =>
      `${named(outcome)} cannot unwind through the patch of ${objectName}, until a later run: ${sentence(reason)}`,
  );
}

function pendingHooks(outcome: ProcessOutcome): string[] {
  return (outcome.pendingHooks ?? []).map(
    ({ objectName, reason }) =>
      `${named(outcome)} runs a hook of the patch of ${objectName} in a later run: ${sentence(reason)}`,
  );
}

function sentence(text: string): string {
  return text.endsWith('.') ? text : `${text}.`;
}

function dryRunText({ processes, patchset }: LibraryResult): string[] {
  const lines = processes.map((outcome) => `${named(outcome)} ${dryRunVerb(outcome)}`);
  return [
    ...(lines.length > 0 ? lines : [nothingToPatch(patchset)]),
    'This was a dry run: nothing has been changed.',
  ];
}

function dryRunVerb(outcome: ProcessOutcome): string {
  const objects = outcome.objects.map(({ objectName, level }) => `${objectName} (level ${level})`).join(', ');
  switch (outcome.result) {
    case 'would-apply':
      return `would be patched: ${objects}.`;
    case 'would-upgrade':
      return `would be upgraded: ${objects}.`;
    case 'would-unload':
      return `would be unpatched: ${objects}.`;
    case 'unchanged':
      return `needs nothing: ${objects}.`;
    default:
      return `would be left as it is: ${hindrance(outcome)}`;
  }
}

/** A process as people read of it. */
export function named({ pid, comm, container }: Pick<ProcessOutcome, 'pid' | 'comm' | 'container'>): string {
  return `Process ${pid} (${comm === '' ? '?' : comm})${container === undefined ? '' : ` in container ${container}`}`;
}

function hindrance({ result, error, rule }: ProcessOutcome): string {
  if (rule) {
    const why = rule.reason === '' ? '' : ` (${rule.reason})`;
    return `blacklisted by "${rule.text}"${why}, line ${rule.line} of ${rule.file}.`;
  }
  if (!error) return `${result}.`;
  return `${result}: ${sentence(error.message)} ${error.hint}`.trim();
}

function count(number: number, noun: string): string {
  if (number === 1) return `1 ${noun}`;
  return `${number} ${noun}${noun.endsWith('s') ? 'es' : 's'}`;
}
