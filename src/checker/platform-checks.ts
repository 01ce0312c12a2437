// Processor, distribution, Node.js, and the right to look into other processes and to change them.
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import type { Check } from './coverage.js';
import { readDistribution } from './distribution.js';
import { RootView } from './root-view.js';

/** CAP_SYS_PTRACE of capabilities(7). */
const tracingCapability = 19n;
const area = 'libraries';

export function platformChecks(): Check[] {
  return [architecture(), distribution(), node(), rights(), ptrace(), seccomp(), container()];
}

function architecture(): Check {
  const isCovered = process.arch === 'x64';
  return {
    area,
    name: 'architecture',
    state: isCovered ? 'covered' : 'not-covered',
    finding: `The processor is ${process.arch}.`,
    ...(!isCovered && { advice: 'Patches for libraries exist for x86-64 only.' }),
  };
}

function distribution(): Check {
  const view = RootView.open('/');
  try {
    const found = readDistribution(view);
    const isDebian12 = found?.id === 'debian' && found.versionId === '12';
    const finding = `The distribution is ${found?.name ?? 'unknown: there is no os-release file'}.`;
    if (isDebian12) return { area, name: 'distribution', state: 'covered', finding };
    const advice =
      'Recipes exist for Debian 12; for others, patches have to be built from their own sources.';
    return { area, name: 'distribution', state: 'unknown', finding, advice };
  } finally {
    view.close();
  }
}

function node(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const isNewEnough = major > 20 || (major === 20 && minor >= 19);
  return {
    area,
    name: 'node',
    state: isNewEnough ? 'covered' : 'not-covered',
    finding: `Node.js is ${process.versions.node}.`,
    ...(!isNewEnough && { advice: 'Install Node.js 20.19 or newer.' }),
  };
}

function rights(): Check {
  const capabilities = BigInt(`0x${statusField('CapEff') || '0'}`);
  const mayTrace = ((capabilities >> tracingCapability) & 1n) === 1n;
  const isRoot = process.geteuid?.() === 0;
  if (isRoot && mayTrace)
    return { area, name: 'rights', state: 'covered', finding: 'This is root, with CAP_SYS_PTRACE.' };
  const finding = isRoot ? 'This is root without CAP_SYS_PTRACE.' : 'This is not root.';
  const advice = isRoot ? 'Give CAP_SYS_PTRACE to this container.' : 'Run kcare-check as root.';
  return { area, name: 'rights', state: isRoot ? 'not-covered' : 'unknown', finding, advice };
}

/** Tried with a process of our own: the kernel asks the same questions as for ptrace(2). */
function ptrace(): Check {
  const scope = textOf('/proc/sys/kernel/yama/ptrace_scope') ?? '0 (no yama)';
  const finding = `kernel.yama.ptrace_scope is ${scope}`;
  const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
  child.on('error', () => undefined);
  try {
    if (child.pid === undefined)
      return {
        area,
        name: 'ptrace',
        state: 'unknown',
        finding: `${finding}; no process could be started to try.`,
      };
    closeSync(openSync(`/proc/${child.pid}/mem`, 'r+'));
    if (scope === '3') throw new Error('no process may trace another');
    return {
      area,
      name: 'ptrace',
      state: 'covered',
      finding: `${finding}; the memory of another process can be opened.`,
    };
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    const advice =
      'Set kernel.yama.ptrace_scope to 2 or less (3 lasts until the next boot), and look at the security module.';
    return { area, name: 'ptrace', state: 'not-covered', finding: `${finding}; ${why}.`, advice };
  } finally {
    child.kill('SIGKILL');
  }
}

function seccomp(): Check {
  const mode = statusField('Seccomp');
  if (mode === '0')
    return { area, name: 'seccomp', state: 'covered', finding: 'No seccomp filter is in force.' };
  const finding = `A seccomp filter is in force here (mode ${mode || 'unknown'}); whether it lets ptrace through was not tried.`;
  const advice = 'Run kcare on the host, or allow ptrace, process_vm_readv and pidfd_open in the filter.';
  return { area, name: 'seccomp', state: 'unknown', finding, advice };
}

function container(): Check {
  const marks = ['/run/systemd/container', '/.dockerenv', '/run/.containerenv'].filter((mark) =>
    existsSync(mark),
  );
  const finding =
    marks.length === 0
      ? 'No mark of a container was found.'
      : `This is a container (${marks.join(', ')}): only its own processes are seen.`;
  return { area, name: 'container', state: 'note', finding };
}

function statusField(name: string): string {
  return new RegExp(`^${name}:\\s*(\\S+)$`, 'm').exec(textOf('/proc/self/status') ?? '')?.[1] ?? '';
}

/** A small file of the kernel, trimmed; undefined when it cannot be read. */
export function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}
