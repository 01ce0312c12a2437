// A small patch with a bit of everything: a static function, static data, a string, an unlikely part, an import.
import { patchSmallTree, type SmallResult } from '../build/small-tree.js';
import type { Patch } from '../../src/patchfile/index.js';

const unit = (limit: number, text: string): string => `#include <stdlib.h>
#include <string.h>
extern int work(int);
static int calls;
static __attribute__((noinline)) int helper(int value) { calls += value; return calls * 3; }
int checked(int value, int *numbers)
{
    if (!numbers) { work(1); work(2); abort(); }
    for (int i = 0; i < value; i++) { if (numbers[i] == ${limit}) abort(); numbers[i] = work(numbers[i]); }
    calls++;
    return helper(value) + (int) strlen(getenv(${JSON.stringify(text)}));
}
int other(int value) { return helper(value) - 1; }
`;

export interface Sample extends SmallResult {
  readonly patch: Patch;
}

export async function samplePatch(): Promise<Sample> {
  const result = await patchSmallTree({
    before: unit(42, 'OLD_NAME'),
    after: unit(43, 'NEW_NAME'),
    functions: ['checked'],
    others: { 'work.c': 'int work(int v) { return v + 1; }\n' },
  });
  if (!result.patch) throw new Error(JSON.stringify(result.refusals));
  return { ...result, patch: result.patch };
}
