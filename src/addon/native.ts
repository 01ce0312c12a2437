// Loads the compiled engine (addon/) and gives it types; the only file that knows the raw shapes of addon/binding.cc.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { errorTable, KcareError, type ErrorCode } from '../base/errors.js';
import type { RemoteAddress } from '../base/address.js';
import { packageRoot } from '../base/package-root.js';
import type {
  CallOutcome,
  CommitOutcome,
  CommitRequest,
  FunctionCall,
  FunctionOptions,
  FunctionOutcome,
  MemorySearch,
} from './types.js';

/**
 * What happened since the last call: processes that were forked or executed a program, and those that opened a marked file.
 * `lost`: and more than the kernel keeps. `ended`: nothing more will come. Process ids are those of our namespace.
 */
export type HostListener = (
  begun: readonly number[],
  touched: readonly number[],
  lost: boolean,
  ended: boolean,
) => void;

export interface HostWatch {
  /** Errno values of the sources that cannot be used; 0 for those that can. */
  readonly processesError: number;
  readonly filesError: number;
  /**
   * Reports processes that open this file, as the loader does before it maps it. `mapped`: its entry in /proc/PID/map_files.
   * On an overlay the file that is opened can be another one, at `path` below `root`; "" leaves that out. Returns an errno
   * value, 0 on success.
   */
  mark(mapped: string, root: string, path: string): number;
  stop(): void;
}

interface NativeCall {
  readonly number: number;
  /** Two's complement, 64 bits. */
  readonly arguments: readonly bigint[];
  readonly mark: Uint8Array;
  /** -1: none. */
  readonly intent: number;
}

/** What addon/binding.cc exports. */
interface NativeModule {
  call(
    pid: number,
    calls: readonly NativeCall[],
    signalReturn: RemoteAddress,
    timeoutMs: number,
  ): CallOutcome;
  callFunction(
    pid: number,
    call: FunctionCall,
    signalReturn: RemoteAddress,
    timeoutMs: number,
    choose: FunctionOptions['choose'],
  ): FunctionOutcome;
  commit(pid: number, request: CommitRequest): CommitOutcome;
  findPointer(pid: number, search: MemorySearch): bigint | undefined;
  findMemorySharer(pid: number): number | undefined;
  ptraceRequests(): number;
  peerUser(descriptor: number): number;
  sendDatagram(path: string, text: string): void;
  lockByte(descriptor: number, offset: number, isHeld: boolean): boolean;
  watchHost(listener: HostListener): HostWatch;
  /** 0 or the errno. */
  loadKernelModule(bytes: Uint8Array): number;
  /** 0 or the errno. */
  unloadKernelModule(name: string): number;
}

let loaded: NativeModule | undefined;

/** The compiled engine; throws FILE_MISSING when it is not built. */
export function nativeModule(): NativeModule {
  if (loaded) return loaded;
  const file = join(packageRoot(), 'build', 'Release', 'kcare_engine.node');
  if (!existsSync(file)) {
    throw new KcareError('FILE_MISSING', `The native engine ${file} is missing: run "npm run build".`);
  }
  loaded = createRequire(import.meta.url)(file) as NativeModule;
  return loaded;
}

function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorTable, code);
}

/** An error of the engine as a KcareError with errno and pid; whatever else was thrown (by `examine`) as it is. */
export function fromNativeError(thrown: unknown, pid: number): unknown {
  if (!(thrown instanceof Error) || !('engineCode' in thrown) || !isErrorCode(thrown.engineCode))
    return thrown;
  const details = { errno: 'errno' in thrown ? thrown.errno : 0, pid };
  return new KcareError(thrown.engineCode, thrown.message, details);
}
