// Explaining a patch: old and new instructions side by side, with the names of what they refer to.
import { expect, test } from 'vitest';
import { explanationText } from '../../src/cli/explain-text.js';
import { readPatch, writePatch, type Patch } from '../../src/patchfile/index.js';
import { explainPatch, type Explanation } from '../../src/review/index.js';
import { patchSmallTree } from '../build/small-tree.js';
import { samplePatch, type Sample } from './sample.js';

const found = ({ shipped, file }: Sample) => ({ shipped, file, source: 'given', debug: [] }) as const;

function marked({ functions }: Explanation, name: string, mark: string): string[] {
  const one = functions.find((candidate) => candidate.name === name);
  return (one?.lines ?? []).filter((line) => line.mark === mark).map(({ text }) => text);
}

test('what changed is all that is marked, and operands name what they lead to', async () => {
  const sample = await samplePatch();
  const explanation = await explainPatch(readPatch(writePatch(sample.patch)), found(sample));
  expect(marked(explanation, 'checked', '-')).toEqual([
    expect.stringMatching(/^cmpl? +\$0x2a,/),
    'lea     "OLD_NAME"(%rip),%rdi',
  ]);
  expect(marked(explanation, 'checked', '+')).toEqual([
    expect.stringMatching(/^cmpl? +\$0x2b,/),
    'lea     "NEW_NAME"(%rip),%rdi',
  ]);
  const same = marked(explanation, 'checked', ' ').join('\n');
  expect(same).toMatch(/call +helper\n/);
  expect(same).toMatch(/calls\(%rip\)/);
  expect(same).toMatch(/call +\*strlen\.got\(%rip\)/);
  expect(same).toMatch(/j\w+ +checked\.cold/);
  expect(same).toMatch(/j\w+ +\+0x[0-9a-f]+/);
  expect(marked(explanation, 'checked.cold', ' ').join('\n')).toMatch(/call +\*abort\.got/);
  expect(marked(explanation, 'checked.cold', '-')).toEqual([]);
});

test('without the object, old code is what the patch carries', async () => {
  const sample = await samplePatch();
  const explanation = await explainPatch(sample.patch);
  expect(explanation.source).toBe('patch');
  expect(marked(explanation, 'checked', '-').join('\n')).toMatch(/lea +0x[0-9a-f]+\(%rip\),%rdi/);
  expect(marked(explanation, 'checked', ' ').join('\n')).toMatch(/call +helper\n/);
});

test('a jump that goes elsewhere is a change, though its instruction looks the same', async () => {
  const text = (first: string, second: string): string =>
    `int choose(int value) { __asm__ volatile("test %0,%0\\n jz 1f\\n nop\\n ${first} nop\\n ${second} nop" :: "r"(value)); return value; }\n`;
  const { patch } = await patchSmallTree({
    before: text('1:', ''),
    after: text('', '1:'),
    functions: ['choose'],
  });
  const explanation = await explainPatch(patch as Patch);
  expect(marked(explanation, 'choose', '-')).toEqual([expect.stringMatching(/^je +\+0x/)]);
  expect(marked(explanation, 'choose', '+')).toEqual([expect.stringMatching(/^je +\+0x/)]);
});

test('the text is the same each time, aligned, and free of control characters', async () => {
  const sample = await samplePatch();
  const patch = {
    ...sample.patch,
    metadata: { ...sample.patch.metadata, description: '', name: 'a\u001b[31m' },
  };
  const text = explanationText(await explainPatch(patch, found(sample)), 3);
  expect(explanationText(await explainPatch(patch, found(sample)), 3)).toBe(text);
  expect(text).toContain('Patch    a\\u001b[31m, level 1');
  expect(text).toMatch(/^ {4}- +\+[0-9a-f]+ +lea {5}"OLD_NAME"/m);
  expect(text).toMatch(/^ {4}\+ {5,}\+[0-9a-f]+ {2}lea {5}"NEW_NAME"/m);
  expect(text).toMatch(/^ {6}…$/m);
});
