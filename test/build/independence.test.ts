// What a recipe may declare independent: functions whose old code never comes back to the bytes under the jump.
import { describe, expect, test } from 'vitest';
import { patchSmallTree } from './small-tree.js';

const others = { 'other.c': 'void tell(int value) { (void)value; }\n' };
const straight = (result: number): string =>
  `extern void tell(int);\nint fixed(int value) { tell(value); if (value > 3) tell(value + 1); return value + ${result}; }\n`;
/** The loop has no prologue: it begins with the first bytes of the function. */
const loop = (step: number): string =>
  `int fixed(volatile int *value) { do { *value -= ${step}; } while (*value > 0); return 0; }\n`;

describe('a function that its fix declares independent', () => {
  test('is marked so in the patch', async () => {
    const { refusals, patch } = await patchSmallTree({
      before: straight(1),
      after: straight(2),
      functions: ['fixed'],
      independent: true,
      others,
    });
    expect(refusals).toEqual([]);
    expect(patch?.hunks).toMatchObject([{ name: 'fixed', kind: 'replace', independent: true }]);
  });

  test('is refused when its code jumps back to its start', async () => {
    const tree = { before: loop(1), after: loop(2), functions: ['fixed'] };
    expect((await patchSmallTree({ ...tree, independent: true })).codes).toEqual(['NOT_INDEPENDENT']);
    expect((await patchSmallTree(tree)).outcome).toBe('built');
  });

  test('is refused when it jumps through a table', async () => {
    const cases = [3, 11, 7, 25, 1, 99, 42, 8].map(
      (value, index) => `case ${index}: other(${value}, v); break;`,
    );
    const tree = {
      before: `extern int other(int, int);\nint fixed(int v) { switch (v) { ${cases.join(' ')} } return v + 1; }\n`,
      after: `extern int other(int, int);\nint fixed(int v) { switch (v) { ${cases.join(' ')} } return v + 2; }\n`,
      functions: ['fixed'],
      others: { 'other.c': 'int other(int a, int b) { return a + b; }\n' },
    };
    expect((await patchSmallTree({ ...tree, independent: true })).codes).toEqual(['NOT_INDEPENDENT']);
  });
});
