// Processes that end, or become another program, in the midst of whatever is done with them (R11).
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { asKcareError } from '../../src/base/errors.js';
import { apply, inspect } from '../../src/engine/index.js';
import { answers, now, Workshop } from './conditions.js';

const rounds = 1500;
/** The program before, in and after the loading of the library. */
const expected = [
  'applied',
  'unchanged',
  'busy TARGET_BUSY',
  'gone TARGET_GONE',
  'refused BUILD_ID_MISMATCH',
];

describe('processes that end at any moment', () => {
  let workshop: Workshop;
  let dying: string;

  beforeAll(() => {
    workshop = new Workshop();
    dying = workshop.compileOf(['dying.c']);
  });
  afterEach(() => workshop.endAll());
  afterAll(() => workshop.close());

  it('are patched, gone or without the library, and nothing else', async () => {
    const { pid } = await workshop.run(dying, workshop.library);
    const patch = answers(workshop.library, 1, 43);
    const results = new Map<string, number>();
    for (let round = 0; round < rounds;) {
      for (const child of childrenOf(pid)) {
        round++;
        for (const result of [look(child), await patched(child)])
          results.set(result, (results.get(result) ?? 0) + 1);
      }
    }
    async function patched(child: number): Promise<string> {
      const { result, error } = await apply(child, [patch], now);
      // What is not expected is shown with its message.
      const known = `${result} ${error?.code ?? ''}`.trim();
      return expected.includes(known) ? known : `${known}: ${error?.message ?? ''} ${error?.stack ?? ''}`;
    }
    expect([...results.keys()].filter((result) => ![...expected, 'seen'].includes(result))).toEqual([]);
    expect([...results.keys()]).toEqual(expect.arrayContaining(['applied', 'gone TARGET_GONE']));
  });

  function look(pid: number): string {
    try {
      inspect(pid);
      return 'seen';
    } catch (thrown) {
      const { code, message } = asKcareError(thrown);
      return code === 'TARGET_GONE' ? `gone ${code}` : `${code}: ${message}`;
    }
  }

  function childrenOf(pid: number): number[] {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  }
});
