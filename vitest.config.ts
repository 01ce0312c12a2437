// Tests in two groups: those that touch no process of this host (guests are none) side by side, then those that stop and
// patch processes, one file at a time.
import { configDefaults, defineConfig } from 'vitest/config';

// With it, each of the thousands of Node.js processes that tests start parses a whole bundle of certificates.
delete process.env['NODE_EXTRA_CA_CERTS'];

const processTests = ['test/{addon,engine,host,agent,daemon,checker,cli,make,scanner,e2e}/**/*.test.ts'];

export default defineConfig({
  test: {
    pool: 'forks',
    // What a program comes to do takes its time on a busy machine.
    expect: { poll: { timeout: 60_000, interval: 10 } },
    reporters: process.env['CI_RESULTS']
      ? ['default', ['json', { outputFile: process.env['CI_RESULTS'] }]]
      : ['default'],
    projects: [
      {
        extends: true,
        test: {
          name: 'pure',
          include: ['test/**/*.test.ts'],
          exclude: [...configDefaults.exclude, ...processTests],
          maxWorkers: 2,
          // The build layer compiles parts of OpenSSL on the first run.
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'process',
          include: processTests,
          maxWorkers: 1,
          // Killing a patcher at each of its steps takes minutes on a busy machine.
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
