// Targets for the tests of the engine: compiles the C sources of fixtures/addon and finds what a remote call needs.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { codeMappings, readMemory } from '../../fixtures/support/process-memory.js';
import { Program } from '../../fixtures/support/program.js';
import {
  nativeEngine,
  type CallOutcome,
  type FunctionOutcome,
  type CommitOutcome,
  type RemoteCall,
} from '../../src/addon/index.js';
import { remoteAddress, type RemoteAddress } from '../../src/base/address.js';
import { packageRoot } from '../../src/base/package-root.js';

const signalReturnCode = Buffer.from('48c7c00f0000000f05', 'hex');

export const systemCalls = { mmap: 9, mprotect: 10, munmap: 11, getpid: 39 } as const;
export const pageSize = 4096n;

/** Compiles fixtures/addon/NAME.c when it or a header changed; gives the program. */
export function compileFixture(name: string): string {
  const source = path.join(packageRoot(), 'fixtures', 'addon', `${name}.c`);
  const program = path.join(packageRoot(), '.cache', 'fixtures-addon', name);
  const headers = fs
    .readdirSync(path.dirname(source))
    .filter((name) => name.endsWith('.h'))
    .map((name) => path.join(path.dirname(source), name));
  const changed = Math.max(...[source, ...headers].map((file) => fs.statSync(file).mtimeMs));
  if ((fs.statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0) <= changed) {
    fs.mkdirSync(path.dirname(program), { recursive: true });
    const options = ['-std=gnu11', '-O2', '-g', '-Wall', '-Wextra', '-Werror', '-pthread'];
    execFileSync('cc', [...options, '-o', `${program}.new`, source], { stdio: 'inherit' });
    fs.renameSync(`${program}.new`, program);
  }
  return program;
}

/** Starts a fixture and waits until it says that it is ready. */
export async function startFixture(name: string, ...parameters: readonly string[]): Promise<Program> {
  const program = await Program.start(compileFixture(name), parameters);
  await program.waitForLine(/^ready/);
  return program;
}

/** The trampoline in the loader of the process. */
export function findSignalReturn(pid: number): RemoteAddress {
  const loader = fs
    .readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .map((line) => line.split(/\s+/)[5] ?? '')
    .find((name) => /\/ld-linux[^/]*$/.test(name));
  for (const { start, size } of codeMappings(pid, loader ?? '')) {
    const code = readMemory(pid, start, size);
    const at = code.indexOf(signalReturnCode);
    if (at >= 0) return remoteAddress(start + BigInt(at));
  }
  throw new Error(`Process ${pid} has no loader with a signal return trampoline.`);
}

/** mmap of private memory: `protection` as in <sys/mman.h>. */
export function mapCall(size: bigint, protection: bigint): RemoteCall {
  const privateAnonymous = 0x22n;
  return { number: systemCalls.mmap, arguments: [0n, size, protection, privateAnonymous, -1n, 0n] };
}

export function unmapCall(address: bigint, size: bigint): RemoteCall {
  return { number: systemCalls.munmap, arguments: [address, size] };
}

export function callIn(pid: number, calls: readonly RemoteCall[], timeoutMs = 2000): CallOutcome {
  return nativeEngine.call(pid, calls, { signalReturn: findSignalReturn(pid), timeoutMs });
}

/** As `callIn`, for calls that must succeed: their results. */
export function resultsIn(pid: number, calls: readonly RemoteCall[]): readonly bigint[] {
  const outcome = callIn(pid, calls);
  if (outcome.outcome !== 'done') throw new Error(`The call was not made: ${JSON.stringify(outcome)}`);
  return outcome.results;
}

/** Calls `spoil` (fixtures/addon/spoil.h) of the fixture, which must have said where it is. */
export function spoilIn(program: Program, choose = () => true): FunctionOutcome {
  const [, address = ''] = /spoil (0x[0-9a-f]+)/.exec(program.lines[0] ?? '') ?? [];
  return nativeEngine.callFunction(
    program.pid,
    { function: remoteAddress(BigInt(address)), arguments: [20n, 22n], stackDepth: 32768 },
    { signalReturn: findSignalReturn(program.pid), timeoutMs: 2000, choose },
  );
}

/** The state letter of /proc/PID/stat. */
export function processState(pid: number): string {
  return /\) (\w)/.exec(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1] ?? '';
}

/** Any thread's line of /proc/PID/status, e.g. `TracerPid`. */
export function statusLine(pid: number, name: string): string {
  const text = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)?.[1] ?? '';
}

/** Stops all threads and lets them go, without writing anything. */
export function stopAllThreads(pid: number): CommitOutcome {
  return nativeEngine.commit(pid, {
    writes: [],
    guarded: [],
    states: [],
    timeoutMs: 1000,
    examine: () => true,
  });
}
