// What libcare-server and its clients say to each other: one JSON object a line (docs/libcare-server.md).
import { errorTable, KcareError, type ErrorCode } from '../base/errors.js';
import { boolean, integer, list, oneOf, optional, record, type Shape, type Shaped } from '../base/shapes.js';
import type { LibraryResult } from '../agent/index.js';

export const protocolVersion = 1;

/** Bytes of a request, without its line end. */
export const longestRequest = 1024 * 1024;
/** Bytes of one line of an answer. */
export const longestAnswer = 256 * 1024 * 1024;

export const requestNames = ['info', 'patch-info', 'update', 'unload', 'status', 'stop'] as const;
export type RequestName = (typeof requestNames)[number];

const longestWaitMs = 24 * 3_600_000;

const requestShape = record({
  protocol: integer(1, protocolVersion),
  request: oneOf(...requestNames),
  pids: optional<readonly number[] | undefined>(list(integer(1, 2 ** 31 - 1), 65_536), undefined),
  waitMs: optional(integer(0, longestWaitMs), 0),
  dryRun: optional(boolean, false),
});

export type Request = Shaped<typeof requestShape>;

/** Sent instead of a request while one is answered: end it as SIGTERM ends kcarectl. */
const endShape = record({ protocol: integer(1, protocolVersion), end: boolean });

/** Throws SyntaxError, ShapeError. */
export function parseRequest(line: string): Request {
  return requestShape(JSON.parse(line));
}

export function isEndLine(line: string): boolean {
  try {
    return endShape(JSON.parse(line)).end;
  } catch {
    return false;
  }
}

/** A process of a run; the rest of what is said about it goes through as it is. */
const processShape = record({ pid: integer(0) });

/** JSON-safe, and back by {@link libraryResultFrom}. */
export function libraryResultToJson(result: LibraryResult): object {
  return {
    ...result,
    processes: result.processes.map(({ error, ...rest }) => ({
      ...rest,
      ...(error && { error: error.toJSON() }),
    })),
  };
}

/** What the server of the same version says is taken as said: it belongs to root. Throws ShapeError. */
export function libraryResultFrom(value: unknown): LibraryResult {
  const checked = record({ processes: list(processShape, 1_000_000), exitCode: integer(0, 255) })(value);
  const result = value as LibraryResult & { readonly processes: readonly { readonly error?: unknown }[] };
  return {
    ...result,
    patchset: result.patchset,
    exitCode: checked.exitCode,
    processes: result.processes.map(({ error, ...rest }) => ({
      ...rest,
      ...(error !== undefined && { error: errorFrom(error) }),
    })),
  };
}

const anything: Shape<unknown> = (value) => value;
const errorShape = record({ code: anything, message: anything, details: anything });

/** An error as {@link KcareError.toJSON} gives it. Throws ShapeError. */
export function errorFrom(value: unknown): KcareError {
  const { code, message, details } = errorShape(value);
  const isKnown = typeof code === 'string' && Object.hasOwn(errorTable, code);
  const fields = typeof details === 'object' && details !== null ? (details as Record<string, unknown>) : {};
  return new KcareError(isKnown ? (code as ErrorCode) : 'INTERNAL', String(message), fields);
}
