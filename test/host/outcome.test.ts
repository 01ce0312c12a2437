// What follows from the outcomes of single processes: exit codes and numbers, as a table.
import { describe, expect, it, test } from 'vitest';
import { exitCodes, KcareError } from '../../src/base/errors.js';
import { exitCodeOf, isLeftBehind, summarise, type ProcessOutcome } from '../../src/host/index.js';

const { done, failed, refused, partial } = exitCodes;
type Result = ProcessOutcome['result'];

const outcome = (result: Result, objects: readonly string[] = []): ProcessOutcome => ({
  pid: 1,
  comm: 'x',
  result,
  objects: objects.map((objectName) => ({ objectName, buildId: 'aa', level: 1 })),
  ...(result === 'unreadable' && { error: new KcareError('NOT_PERMITTED', 'no') }),
  ...(result === 'not-reached' && { error: new KcareError('RUN_ENDED', 'SIGTERM') }),
  ...(result === 'failed' && { error: new KcareError('TARGET_MEMORY', 'no') }),
  wallMs: 1,
});

describe('exit code of a run', () => {
  const table: [readonly Result[], number][] = [
    [[], done],
    [['applied', 'unchanged', 'upgraded'], done],
    [['applied', 'gone', 'blacklisted'], done],
    [['gone'], done],
    [['blacklisted'], done],
    [['applied', 'busy'], partial],
    [['unchanged', 'refused'], partial],
    [['would-apply', 'refused'], partial],
    [['refused', 'refused'], refused],
    [['refused', 'blacklisted', 'gone'], refused],
    [['busy'], partial],
    [['not-reached', 'busy'], partial],
    [['applied', 'not-reached'], partial],
    [['failed'], failed],
    [['unreadable'], failed],
    [['failed', 'refused'], partial],
    [['busy', 'refused'], partial],
  ];
  test.each(table)('%j gives %i', (results, expected) => {
    expect(exitCodeOf(results.map((result) => outcome(result)))).toBe(expected);
  });

  it('is 0 exactly when nobody is left behind', () => {
    for (const [results, code] of table) {
      const left = results.some((result) => isLeftBehind(outcome(result)));
      expect(code === done).toBe(!left);
    }
  });
});

it('counts only what is really patched (R6)', () => {
  const summary = summarise([
    outcome('applied', ['libc.so.6', 'libcrypto.so.3']),
    outcome('unchanged', ['libc.so.6']),
    outcome('busy', []),
    outcome('refused', ['libc.so.6']),
    outcome('would-apply', ['libz.so.1']),
    outcome('blacklisted'),
    outcome('gone'),
  ]);
  expect(summary).toEqual({
    applied: 1,
    upgraded: 0,
    unloaded: 0,
    // The refused process still runs an older patch, which its memory shows.
    patches: 4,
    objects: [
      { name: 'libc.so.6', processes: 3 },
      { name: 'libcrypto.so.3', processes: 1 },
    ],
    removed: [],
  });
});
