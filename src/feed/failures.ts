// What the libraries throw while metadata is verified, as errors of our table; told apart by class, never by message.
import {
  LengthOrHashMismatchError,
  RepositoryError as ModelRepositoryError,
  UnsignedMetadataError,
  ValueError as ModelValueError,
} from '@tufjs/models/dist/error.js';
import {
  BadVersionError,
  DownloadError,
  DownloadLengthMismatchError,
  ExpiredMetadataError,
  RepositoryError,
  ValueError,
} from 'tuf-js/dist/error.js';
import { type ErrorCode, KcareError, asKcareError } from '../base/errors.js';

type ErrorClass = abstract new (...parameters: never[]) => Error;

/** Subclasses stand before their superclasses. */
const byClass: readonly (readonly [ErrorClass, ErrorCode])[] = [
  [UnsignedMetadataError, 'FEED_UNTRUSTED'],
  [LengthOrHashMismatchError, 'FEED_MISMATCH'],
  [ModelRepositoryError, 'FEED_UNTRUSTED'],
  [ExpiredMetadataError, 'FEED_EXPIRED'],
  [BadVersionError, 'FEED_ROLLBACK'],
  [RepositoryError, 'FEED_MISMATCH'],
  [DownloadLengthMismatchError, 'FEED_MISMATCH'],
  [DownloadError, 'FEED_UNREACHABLE'],
  [ModelValueError, 'FEED_MALFORMED'],
  [ValueError, 'FEED_MALFORMED'],
  [SyntaxError, 'FEED_MALFORMED'],
  // The metadata parsers throw TypeError, and RangeError for absurd nesting, on values of the wrong shape.
  [TypeError, 'FEED_MALFORMED'],
  [RangeError, 'FEED_MALFORMED'],
];

export function asFeedError(thrown: unknown, what: string): KcareError {
  if (thrown instanceof KcareError) return thrown;
  for (const [type, code] of byClass) {
    if (thrown instanceof type)
      return new KcareError(code, `${what}: ${thrown.message}.`, {}, { cause: thrown });
  }
  return asKcareError(thrown);
}
