// Patches built from C that refer to code and data of every kind, tried in real processes.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { patchSmallTree, type SmallTree } from '../build/small-tree.js';
import { compileHelper, expectProblem, expectTrial, removeTrials, type Trial } from './code-trial.js';

const functions = ['entry'];

/** Questions whose answers do not depend on those before. */
const answers = (
  original: string,
  patched: string,
  question = 'main 3',
): Pick<Trial, 'original' | 'patched' | 'restored'> => {
  const dialogue = (answer: string): Trial['original'] => [[question, `main ${answer}`]];
  return { original: dialogue(original), patched: dialogue(patched), restored: dialogue(original) };
};

async function expectRefused(tree: SmallTree, code: string, message: RegExp): Promise<void> {
  const made = await patchSmallTree(tree);
  const messages = made.refusals.filter((refusal) => refusal.code === code).map((refusal) => refusal.message);
  expect(messages, made.codes.join()).toContainEqual(expect.stringMatching(message));
}

describe('a patch', () => {
  const helpers = mkdtempSync(join(tmpdir(), 'kcare-code-'));
  const linked = (name: string, source: string, ...flags: string[]): string[] => [
    compileHelper(helpers, name, source, ...flags),
    `-Wl,-rpath,${helpers}`,
  ];
  afterAll(() => {
    removeTrials();
    rmSync(helpers, { recursive: true });
  });

  describe('that calls an indirect function (IFUNC)', () => {
    const text = (body: string): string =>
      `#include <string.h>\nstatic char text[100] = "some text";\nint entry(int value)\n{\n${body}\n}\n`;

    it.each([
      ['slot', ['-fno-plt']],
      ['stub', ['-fplt']],
    ])('of the C library uses the %s of its object', async (_, extraFlags) => {
      await expectTrial({
        before: text('    return strlen(text + value) + 10;'),
        after: text('    return strlen(text + value) + 20 + strlen(text);'),
        functions,
        how: 'linked',
        extraFlags,
        link: [],
        ...answers('16', '35'),
      });
    });

    it('of the C library, new to its object, gets what the process chose', async () => {
      const made = await expectTrial({
        before: text('    return value * 1001;'),
        after: text(
          '    char copy[100];\n    memmove(copy, text, sizeof copy);\n    return strlen(strchr(copy, value + 113));',
        ),
        functions,
        how: 'linked',
        link: [],
        extraFlags: ['-fno-builtin'],
        ...answers('3003', '4'),
      });
      const names = made.patch?.symbols.filter(({ where }) => where === 'foreign').map(({ name }) => name);
      expect(names?.sort()).toEqual(['memmove', 'strchr', 'strlen']);
    });

    it.each([
      ['an exported one', '', []],
      ['a hidden one', '__attribute__((visibility("hidden"))) ', []],
      ['an exported one of a program', '', ['-fPIE']],
    ])(
      'of the object itself, %s, gets what the process chose, and may patch it',
      async (_, hidden, extraFlags) => {
        const unit = (chosen: number, own: number): string => `
#include <stdlib.h>
static __attribute__((noinline)) int slow(int value) { return value * 2 + 100; }
static __attribute__((noinline)) int fast(int value) { return value * 2 + ${chosen}; }
static int asked;
static int (*resolve(void))(int) { if (asked++) abort(); return asked ? fast : slow; }
${hidden}int compute(int value) __attribute__((ifunc("resolve")));
int other(int value) { return compute(value) * 3 + 1; }
int entry(int value)
{
    return compute(value) + compute(value + 1) + ${own};
}
`;
        await expectTrial({
          before: unit(200, 1000),
          after: unit(300, 2000),
          functions: ['entry', 'fast'],
          how: extraFlags.length > 0 ? 'program' : 'linked',
          extraFlags: ['-fplt', ...extraFlags],
          link: [],
          ...answers('1414', '2614'),
        });
      },
    );

    it('of which the resolver changed is refused: the process holds its answer', async () => {
      const unit = (chosen: string): string => `
static int slow(int value) { return value * 2 + 100; }
static int fast(int value) { return value * 2 + 200; }
typedef int function(int);
static function *resolve(void) { return ${chosen}; }
int compute(int value) __attribute__((ifunc("resolve")));
int use(int value) { return value ? slow(value) : fast(value); }
`;
      const tree = { before: unit('slow'), after: unit('fast'), functions: ['resolve'] };
      await expectRefused(tree, 'RUN_AT_LOAD', /^resolve is a resolver of an indirect function/);
    });
  });

  describe('that calls a function which another object defines again', () => {
    const unit = (own: string): string =>
      `int helper(int value) { return value * 31 + 1; }\nint entry(int value)\n{\n    ${own}\n}\n`;
    const preload = (): Readonly<Record<string, string>> => ({
      LD_PRELOAD: compileHelper(
        helpers,
        'libpreload.so',
        'int helper(int value) { return -value; }\nint getpagesize(void) { return 77; }\n',
      ),
    });
    const extraFlags = ['-fno-inline', '-fno-ipa-cp', '-fsemantic-interposition'];

    it.each([
      ['slot', ['-fno-plt']],
      ['stub', ['-fplt']],
    ])('calls that one through the %s of its object', async (_, flags) => {
      await expectTrial({
        before: unit('return helper(value) + 100;'),
        after: unit('return helper(value + 1) + 200;'),
        functions,
        how: 'linked',
        environment: preload(),
        extraFlags: [...extraFlags, ...flags],
        link: [],
        ...answers('97', '196'),
      });
    });

    it('calls that one although its object never called any', async () => {
      await expectTrial({
        before: `extern int getpagesize(void);${unit('return value * 1001;')}`,
        after: `extern int getpagesize(void);${unit('return helper(value + 1) + getpagesize();')}`,
        functions,
        how: 'linked',
        environment: preload(),
        extraFlags,
        link: [],
        ...answers('3003', '73'),
      });
    });

    it('calls its own where the object is linked to do so', async () => {
      await expectTrial({
        before: unit('return value * 1001;'),
        after: unit('return helper(value) + 200;'),
        functions,
        how: 'linked',
        environment: preload(),
        extraFlags,
        ...answers('3003', '294'),
      });
    });

    it('is refused where its library was loaded late and the choice is not known', async () => {
      const made = await patchSmallTree({
        before: unit('return value * 1001;'),
        after: unit('return helper(value) + 200;'),
        functions,
        extraFlags,
        link: [],
      });
      await expectProblem(
        made,
        preload(),
        /helper is defined by libpreload\.so, libunit\.so, and which one counts/,
      );
    });
  });

  describe('that calls a function of which there are two versions', () => {
    const versions = (): string[] => {
      const names = join(helpers, 'versions.map');
      writeFileSync(names, 'V1 { global: count; local: *; };\nV2 { global: count; } V1;\n');
      return linked(
        'libversions.so',
        'int old_count(void) { return 1; }\nint new_count(void) { return 2; }\n' +
          '__asm__(".symver old_count, count@V1\\n.symver new_count, count@@V2");\n',
        `-Wl,--version-script=${names}`,
      );
    };
    const unit = (head: string, body: string): string =>
      `extern int count(void);\n${head}\nint entry(int value)\n{\n    ${body}\n}\n`;

    it.each([
      ['slot', '-fno-plt'],
      ['stub', '-fplt'],
    ])('calls the old one through the %s of its object', async (_, flag) => {
      const head = '__asm__(".symver count, count@V1");';
      await expectTrial({
        before: unit(head, 'return value + count();'),
        after: unit(head, 'return value + count() * 10;'),
        functions,
        how: 'linked',
        extraFlags: [flag],
        link: versions(),
        ...answers('4', '13'),
      });
    });

    it('calls the default one where its object called none', async () => {
      await expectTrial({
        before: unit('', 'return value * 1001;'),
        after: unit('', 'return value + count() * 10;'),
        functions,
        how: 'linked',
        link: ['-Wl,--no-as-needed', ...versions()],
        ...answers('3003', '23'),
      });
      // In the table of the C library the old one, which takes no size, comes first.
      const head = '#define _GNU_SOURCE\n#include <sched.h>';
      await expectTrial({
        before: unit(head, 'return value * 1001;'),
        after: unit(head, 'cpu_set_t set;\n    return sched_getaffinity(0, sizeof set, &set) * 100 + value;'),
        functions,
        how: 'linked',
        link: [],
        ...answers('3003', '3'),
      });
    });
  });

  describe('that uses data', () => {
    it('of its library that the program copied (COPY) uses the copy', async () => {
      const unit = (factor: number): string =>
        `int copied = 5;\nint entry(int value)\n{\n    copied += value;\n    return copied * ${factor};\n}\n`;
      await expectTrial({
        before: unit(1),
        after: unit(10),
        functions,
        how: 'linked',
        link: [],
        hostFlags: ['-DCOPIED', '-no-pie', '-fno-pie'],
        original: [
          ['set 7', 'set 7'],
          ['main 1', 'main 8'],
        ],
        patched: [
          ['main 1', 'main 90'],
          ['set 20', 'set 20'],
          ['main 1', 'main 210'],
          ['get 0', 'get 21'],
        ],
        restored: [['main 1', 'main 22']],
      });
    });

    it('of its library that the program copied uses the copy although the library never read it', async () => {
      const unit = (body: string): string =>
        `int copied = 5;\nint entry(int value)\n{\n    return ${body};\n}\n`;
      await expectTrial({
        before: unit('value * 1001'),
        after: unit('value + copied'),
        functions,
        how: 'linked',
        link: [],
        hostFlags: ['-DCOPIED', '-no-pie', '-fno-pie'],
        original: [['set 7', 'set 7'], ...answers('3003', '').original],
        patched: answers('10', '').original,
        restored: answers('3003', '').original,
      });
    });

    it('of the C library and of the loader finds them', async () => {
      const head =
        '#include <stdio.h>\n#include <string.h>\nextern char **environ;\nextern int __libc_enable_secure;\n' +
        'extern char _rtld_global_ro[];\nextern int _dl_argc __attribute__((weak));\n';
      await expectTrial({
        before: `${head}int entry(int value)\n{\n    return value * 1001;\n}\n`,
        after: `${head}int entry(int value)
{
    int found = environ && !strncmp(environ[0], "FIRST=", 6);
    return found + (fputs("from the patch\\n", stdout) >= 0) * 10 + __libc_enable_secure * 100 +
        (_rtld_global_ro[0] || _rtld_global_ro[8]) * 1000 + value;
}
`,
        functions,
        how: 'linked',
        link: [],
        environment: {},
        ...answers('3003', '1013'),
      });
    });

    it('that are static, also local ones of the same name, in a stripped library, goes on with them', async () => {
      const unit = (step: number): string => `
static int total = 7;
int first(int value) { static int count = 100; count += value; return count; }
int entry(int value)
{
    static int count;
    count += ${step};
    total += value;
    return count * 1000 + total + (first(0) == 100);
}
`;
      await expectTrial({
        before: unit(1),
        after: unit(10),
        functions,
        how: 'linked',
        extraFlags: ['-fno-inline'],
        original: [
          ['main 1', 'main 1009'],
          ['main 1', 'main 2010'],
        ],
        patched: [
          ['main 1', 'main 12011'],
          ['thread 1', 'thread 22012'],
        ],
        restored: [['main 1', 'main 23013']],
      });
    });
  });

  describe('that brings along', () => {
    it('new functions, variables, tables, strings and empty data works, and loses them with the unload', async () => {
      await expectTrial({
        before: 'int entry(int value)\n{\n    return value * 17;\n}\n',
        after: `
static int step(int value) { return value * 3 + 1; }
int entry(int value)
{
    static int calls = 40;
    static int seen[1000];
    static const char *const words[] = { "none", "one", "two", "three", "four" };
    const char *word = words[value];
    int length = 0;
    while (word[length]) length++;
    seen[value * 100] += step(value);
    return ++calls * 1000 + seen[value * 100] * 10 + length;
}
`,
        functions,
        adds: ['step'],
        how: 'linked',
        extraFlags: ['-fno-inline'],
        original: [['main 3', 'main 51']],
        patched: [
          ['main 3', 'main 41105'],
          ['main 3', 'main 42205'],
          ['thread 1', 'thread 43043'],
        ],
        restored: [['main 3', 'main 51']],
      });
    });

    it('switch tables, and strings that the original shares with others, works', async () => {
      const unit = (factor: number): string => `
#include <stdio.h>
static int length(const char *text) { int count = 0; while (text[count]) count++; return count; }
const char *shared(int value) { return value ? "a shared string" : "another"; }
int entry(int value)
{
    switch (value) {
    case 0: return length("a shared string") * ${factor};
    case 1: return length("other") + ${factor};
    case 2: puts("two"); return 7;
    case 3: return length(shared(1)) + ${factor};
    case 4: puts("four"); return ${factor};
    case 5: return length("another");
    case 6: puts("six"); return length("") + ${factor * 3};
    default: return -1;
    }
}
`;
      const dialogue = (factor: number): Trial['original'] =>
        [15 * factor, 5 + factor, 7, 15 + factor, factor, 7, 3 * factor, -1].map((answer, value) => [
          `main ${value}`,
          `main ${answer}`,
        ]);
      await expectTrial({
        before: unit(1),
        after: unit(2),
        functions,
        how: 'linked',
        extraFlags: ['-fno-inline', '-fno-tree-switch-conversion'],
        shows: /jmp +\*/,
        original: dialogue(1),
        patched: dialogue(2),
        restored: dialogue(1),
      });
    });

    it.each([
      ['a function that begins with endbr64', '-fcf-protection=full', /<entry>:\s+0:\s+f3 0f 1e fa/],
      ['a function without it', '-fcf-protection=none', /<entry>:\s+0:\s+(?!f3 0f 1e fa)/],
    ])('%s works', async (_, flag, shows) => {
      const unit = (factor: number): string =>
        `int entry(int value)\n{\n    while (value < 100)\n        value = value * 3 + ${factor};\n    return value;\n}\n`;
      await expectTrial({
        before: unit(1),
        after: unit(2),
        functions,
        how: 'linked',
        extraFlags: [flag],
        shows,
        ...answers('283', '107'),
      });
    });
  });

  describe('that the loader would have to run', () => {
    const unit = (start: string, body: string): string => `
static int ready = 1;
static void __attribute__((constructor)) start(void) { ${start} }
int entry(int value)
{
    return ${body};
}
`;

    it('as a changed constructor is refused', async () => {
      const tree = {
        before: unit('ready = 7;', 'ready + value'),
        after: unit('ready = 8;', 'ready + value'),
        functions: ['start'],
      };
      await expectRefused(tree, 'RUN_AT_LOAD', /^start is a constructor; it has done its work/);
    });

    it.each(['constructor', 'destructor'])('as a new %s is refused', async (kind) => {
      const tree = {
        before: 'static int ready;\nint entry(int value) { return ready + value; }\n',
        after:
          `static int ready;\nstatic void __attribute__((${kind})) start(void) { ready = 7; }\n` +
          'int entry(int value) { start(); return ready + value + 2; }\n',
        functions,
        adds: ['start'],
        extraFlags: ['-fno-inline'],
      };
      await expectRefused(tree, 'RUN_AT_LOAD', /^start is a \w+; it would not be called/);
    });

    it('but that changes another function beside a constructor works', async () => {
      await expectTrial({
        before: unit('ready = 7;', 'ready + value'),
        after: unit('ready = 7;', 'ready * value'),
        functions,
        how: 'dlopen',
        ...answers('10', '21'),
      });
    });
  });
});
