// Patches whose code uses thread-local data, by every access model, built from C and tried in real processes.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { relocationType } from '../../src/elf/index.js';
import { patchSmallTree } from '../build/small-tree.js';
import { compileHelper, expectTrial, removeTrials, type Trial } from './code-trial.js';

/** Adds `step` times its argument to counters of the calling thread: 5 and 0 at first. */
const counting = (declarations: string, step: number): string => `
${declarations}
int entry(int value)
{
    first += ${step} * value;
    second += 1;
    return first * 100 + second;
}
`;

const dialogues: Pick<Trial, 'original' | 'patched' | 'restored'> = {
  original: [
    ['main 1', 'main 601'],
    ['thread 2', 'thread 701'],
    ['main 1', 'main 702'],
  ],
  patched: [
    ['main 1', 'main 1703'],
    ['thread 2', 'thread 2702'],
  ],
  restored: [
    ['main 1', 'main 1804'],
    ['thread 1', 'thread 2803'],
  ],
};

const exported = '__thread int first = 5; __thread int second;';
const hidden = 'static __thread int first = 5; static __thread int second;';

function counter(declarations: string, rest: Pick<Trial, 'how'> & Partial<Trial>): Trial {
  const functions = ['entry'];
  return {
    before: counting(declarations, 1),
    after: counting(declarations, 10),
    functions,
    ...dialogues,
    ...rest,
  };
}

describe('thread-local data', () => {
  const helpers = mkdtempSync(join(tmpdir(), 'kcare-thread-local-'));
  afterAll(() => {
    removeTrials();
    rmSync(helpers, { recursive: true });
  });

  it('by general dynamic code are those of each thread', async () => {
    await expectTrial(counter(exported, { how: 'dlopen', link: [], shows: /R_X86_64_TLSGD\s+first/ }));
    const flags = ['-fplt'];
    await expectTrial(
      counter(exported, { how: 'linked', link: [], extraFlags: flags, shows: /TLSGD\s+first/ }),
    );
  });

  it('by local dynamic code are those of each thread', async () => {
    await expectTrial(
      counter(hidden, { how: 'dlopen', shows: /R_X86_64_TLSLD[^]*R_X86_64_DTPOFF32\s+second/ }),
    );
    await expectTrial(counter(hidden, { how: 'linked', extraFlags: ['-fplt'], shows: /R_X86_64_TLSLD/ }));
  });

  it('by initial exec code are those of each thread', async () => {
    const extraFlags = ['-ftls-model=initial-exec'];
    await expectTrial(counter(exported, { how: 'linked', extraFlags, link: [], shows: /GOTTPOFF\s+first/ }));
    await expectTrial(counter(hidden, { how: 'dlopen', extraFlags, shows: /R_X86_64_GOTTPOFF\s+second/ }));
  });

  it('by local exec code of a program are those of each thread', async () => {
    await expectTrial(counter(hidden, { how: 'program', extraFlags: ['-fPIE'], shows: /TPOFF32\s+second/ }));
    const link = ['-no-pie'];
    await expectTrial(
      counter(hidden, { how: 'program', extraFlags: ['-fPIE'], link, shows: /TPOFF32\s+first/ }),
    );
  });

  it('by descriptors are those of each thread', async () => {
    const extraFlags = ['-mtls-dialect=gnu2'];
    await expectTrial(
      counter(exported, { how: 'dlopen', extraFlags, link: [], shows: /GOTPC32_TLSDESC\s+first/ }),
    );
    await expectTrial(
      counter(hidden, { how: 'linked', extraFlags, shows: /TLSDESC_CALL\s+_TLS_MODULE_BASE_/ }),
    );
  });

  it.each([
    ['general dynamic', exported, /R_X86_64_TLSGD/, ['-fPIC']],
    ['general dynamic', exported, /R_X86_64_TLSGD/, ['-fPIC', '-fplt']],
    ['local dynamic', hidden, /R_X86_64_TLSLD/, ['-fPIC']],
    ['local dynamic', hidden, /R_X86_64_TLSLD/, ['-fPIC', '-fplt']],
    ['initial exec', exported, /R_X86_64_GOTTPOFF/, ['-fPIC', '-ftls-model=initial-exec']],
  ])('by %s code that the linker made cheaper in a program are found', async (_, data, shows, extraFlags) => {
    await expectTrial(counter(data, { how: 'program', extraFlags, shows }));
  });

  it('of another unit of the object, and of another library, are found through its slots', async () => {
    const other = compileHelper(helpers, 'libother.so', '__thread int second;\n');
    const trial = counter(
      'extern __thread int first __attribute__((visibility("hidden"))); extern __thread int second;',
      {
        how: 'linked',
        others: { 'first.c': '__thread int first __attribute__((visibility("hidden"))) = 5;\n' },
        link: [other, `-Wl,-rpath,${helpers}`],
      },
    );
    await expectTrial(trial);
  });

  it.each([
    [
      'a module id',
      `__thread int before = 9; ${exported} __thread int behind = 9;`,
      'local-dynamic',
      'second',
    ],
    [
      'a distance from the thread pointer',
      '__attribute__((tls_model("initial-exec"))) static __thread int first = 5;\n' +
        '__thread int second __attribute__((visibility("hidden")));',
      'initial-exec',
      'second',
    ],
  ])(
    'that the object has no such slot for get one with %s out of its slots',
    async (_, data, model, name) => {
      const redeclared = `extern __thread int ${name} __attribute__((tls_model("${model}")));`;
      const made = await expectTrial({
        before: counting(data, 1),
        after: counting(data, 10).replace('{', `{\n${redeclared}`),
        functions: ['entry'],
        others: { 'names.map': '{ global: entry; local: *; };' },
        link: ['-Wl,--version-script=names.map'],
        how: 'dlopen',
        ...dialogues,
      });
      expect(made.patch?.relocations.map(({ type }) => type)).toContain(relocationType.copy);
    },
  );

  it('by initial exec code are refused where no slot of the object shows how far they are from the thread pointer', async () => {
    const redeclared = 'extern __thread int second __attribute__((tls_model("initial-exec")));';
    const made = await patchSmallTree({
      before: counting(exported, 1),
      after: counting(exported, 10).replace('{', `{\n${redeclared}`),
      functions: ['entry'],
    });
    expect(made.codes).toEqual(['UNSUPPORTED_RELOCATION']);
    expect(made.refusals[0]?.message).toMatch(/gotTpOff, and the object has no slot/);
  });

  it('that are new are refused: threads that run already have none', async () => {
    const made = await patchSmallTree({
      before: 'int entry(int value) { return value * 17 + 3; }\n',
      after: 'int entry(int value) { static __thread int seen; seen += value; return seen * 17 + 3; }\n',
      functions: ['entry'],
    });
    expect(made.refusals).toContainEqual({
      code: 'CHANGED_DATA',
      message: 'entry uses new thread-local data seen; the threads that run already have none',
      function: 'entry',
    });
  });

  it('of another object are refused where the object has no slot for them', async () => {
    const made = await patchSmallTree({
      before: 'extern __thread int far; int entry(int value) { return value * 17 + 3; }\n',
      after: 'extern __thread int far; int entry(int value) { return far + value; }\n',
      functions: ['entry'],
    });
    expect(made.codes).toEqual(['UNRESOLVED_SYMBOL']);
    expect(made.refusals[0]?.message).toMatch(/far of another object/);
  });
});
