// Typed door to the native engine (addon/): validates in TypeScript, one C++ file marshals.
import type { RemoteAddress } from '../base/address.js';
import { hex, remoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { fromNativeError, nativeModule } from './native.js';
import type { CommitRequest, MemorySearch, NativeEngine, RemoteCall } from './types.js';

export { loadKernelModule, unloadKernelModule } from './kernel-modules.js';
export type * from './types.js';

const userAddressEnd = 1n << 47n;
const largestTimeoutMs = 3_600_000;

function require(condition: boolean, message: string): asserts condition {
  if (!condition) throw new KcareError('INTERNAL', `Wrong argument for the native engine: ${message}.`);
}

function requirePid(pid: number): void {
  require(Number.isInteger(pid) && pid > 0 && pid < 2 ** 31, `process id ${pid}`);
  require(pid !== process.pid, 'a process cannot patch itself');
}

function requireTimeout(timeoutMs: number): void {
  require(Number.isFinite(timeoutMs) &&
    timeoutMs >= 0 &&
    timeoutMs <= largestTimeoutMs, `timeout ${timeoutMs} ms`);
}

function requireRange(start: RemoteAddress, size: number | bigint): void {
  const isInside = start >= 0n && BigInt(size) > 0n && start + BigInt(size) <= userAddressEnd;
  require(isInside, `address range ${hex(start)} of ${size} bytes`);
}

function requireCall(call: RemoteCall): void {
  require(Number.isInteger(call.number) &&
    call.number >= 0 &&
    call.number < 1024, `system call ${call.number}`);
  require(call.arguments.length <= 6, `${call.arguments.length} arguments of system call ${call.number}`);
}

function requireWord(value: number): void {
  require(Number.isInteger(value) && value >= 0 && value < 2 ** 32, `state word ${value}`);
}

function requireCommit(request: CommitRequest): void {
  requireTimeout(request.timeoutMs);
  for (const { address, expected, replacement } of request.writes) {
    requireRange(address, expected.length);
    require(expected.length ===
      replacement.length, `sizes of expected and new bytes at ${hex(address)} differ`);
  }
  for (const { start, end } of request.guarded) requireRange(start, end - start);
  if (request.search) requireSearch(request.search);
  if (request.held) {
    const { work, wait, record, signalReturn, stackDepth } = request.held;
    for (const address of [work, wait, record]) requireRange(address, 4);
    requireRange(signalReturn, 9);
    require(Number.isInteger(stackDepth) && stackDepth > 0, `stack of ${stackDepth} bytes`);
  }
  for (const { address, during, after } of request.states) {
    requireRange(address, 4);
    requireWord(during);
    requireWord(after);
  }
}

function requireSearch({ unreferenced, own }: MemorySearch): void {
  for (const { start, end } of [...unreferenced, ...own]) requireRange(start, end - start);
}

/** Runs `body`; what the engine throws comes out as KcareError. */
function translated<Result>(pid: number, body: () => Result): Result {
  try {
    return body();
  } catch (thrown) {
    throw fromNativeError(thrown, pid);
  }
}

/** The ptrace engine. Throws KcareError: TARGET_TRACED, TARGET_UNSUPPORTED, NOT_PERMITTED, TARGET_MEMORY, INTERNAL. */
export const nativeEngine: NativeEngine = {
  call(pid, calls, { signalReturn, timeoutMs }) {
    requirePid(pid);
    requireTimeout(timeoutMs);
    requireRange(signalReturn, 9);
    calls.forEach(requireCall);
    const nativeCalls = calls.map((call) => ({
      number: call.number,
      arguments: call.arguments.map((value) => BigInt.asUintN(64, value)),
      mark: call.mark ?? new Uint8Array(0),
      intent: call.intent ?? -1,
    }));
    return translated(pid, () => nativeModule().call(pid, nativeCalls, signalReturn, Math.ceil(timeoutMs)));
  },

  callFunction(pid, call, { signalReturn, timeoutMs, choose }) {
    requirePid(pid);
    requireTimeout(timeoutMs);
    requireRange(signalReturn, 9);
    requireRange(call.function, 1);
    require(call.arguments.length <= 6, `${call.arguments.length} arguments of a function`);
    require(Number.isInteger(call.stackDepth) && call.stackDepth > 0, `stack of ${call.stackDepth} bytes`);
    const words = call.arguments.map((value) => BigInt.asUintN(64, value));
    return translated(pid, () =>
      nativeModule().callFunction(
        pid,
        { ...call, arguments: words },
        signalReturn,
        Math.ceil(timeoutMs),
        choose,
      ),
    );
  },

  commit(pid, request) {
    requirePid(pid);
    requireCommit(request);
    return translated(pid, () =>
      nativeModule().commit(pid, { ...request, timeoutMs: Math.ceil(request.timeoutMs) }),
    );
  },

  ptraceRequests() {
    return nativeModule().ptraceRequests();
  },

  findPointer(pid, search) {
    requirePid(pid);
    requireSearch(search);
    const found = translated(pid, () => nativeModule().findPointer(pid, search));
    return found === undefined ? undefined : remoteAddress(found);
  },

  findMemorySharer(pid) {
    requirePid(pid);
    return translated(pid, () => nativeModule().findMemorySharer(pid));
  },
};
