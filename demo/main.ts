// The quickstart: makes a patch from Debian's packages, publishes it, and live-patches a process on a vulnerable OpenSSL.
import fs from 'node:fs';
import path from 'node:path';
import { packageRoot } from '../src/base/package-root.js';
import { LocalHost } from '../fixtures/support/local-host.js';
import { fixtureProgram, opensslEnvironment } from '../fixtures/support/openssl.js';
import { buildOpensslPatch } from '../fixtures/support/patches.js';
import { Program } from '../fixtures/support/program.js';
import { parseUpdate } from '../fixtures/support/reports.js';
import { check, quote, say, step } from './narrate.js';

const cves = ['CVE-2026-22796', 'CVE-2025-9232'] as const;
const summaries = { VULNERABLE: /^SUMMARY 2 vulnerable/, FIXED: /^SUMMARY 0 vulnerable, 2 fixed/ };

type Answer = keyof typeof summaries;

/** Waits until the process itself finds both vulnerabilities there, or gone; shows what it saw. */
async function showAnswers(program: Program, wanted: Answer): Promise<void> {
  await program.waitForLine(summaries[wanted]);
  check(program.isAlive, `process ${program.pid} is still alive`);
  say(`process ${program.pid}:`);
  for (const cve of cves) {
    const line = program.lines.findLast((text) => text.startsWith(`${cve} `)) ?? '';
    check(line.startsWith(`${cve} ${wanted}`), `${cve} is ${wanted}`);
    quote(line);
  }
}

/** Runs one command the way a user would, shows it with its output, and insists on success. */
async function showCommand(host: LocalHost, ...parameters: string[]): Promise<string> {
  say(`$ kcarectl ${parameters.join(' ')}`);
  const { exitCode, stdout, stderr } = await host.kcarectl(...parameters);
  quote(stdout + stderr);
  check(exitCode === 0, `kcarectl ${parameters[0] ?? ''} succeeds (exit status ${exitCode})`);
  return stdout;
}

async function showLiveFromVulnerableToFixedAndBack(host: LocalHost, program: Program): Promise<void> {
  const pid = String(program.pid);

  step('The process is vulnerable');
  await showAnswers(program, 'VULNERABLE');

  step('Patch it while it runs');
  await showCommand(host, '--lib-update', '--pid', pid);
  await showAnswers(program, 'FIXED');

  step('What is patched');
  const info = await showCommand(host, '--lib-info', '--pid', pid);
  check(info.includes(pid), '--lib-info names the process');
  const patchInfo = await showCommand(host, '--lib-patch-info', '--pid', pid);
  for (const cve of cves) check(patchInfo.includes(cve), `--lib-patch-info names ${cve}`);

  step('Take the patch out again');
  await showCommand(host, '--lib-unload', '--pid', pid);
  await showAnswers(program, 'VULNERABLE');

  step('How long the process stood still');
  const { stdout } = await host.kcarectl('--lib-update', '--pid', pid, '--json');
  const outcome = parseUpdate(stdout).find((entry) => entry.pid === program.pid);
  check(outcome?.pauseNs !== undefined, 'the pause is reported');
  const { running = 0, longest = 0 } = outcome?.pauseNs ?? {};
  const microseconds = (nanoseconds: number): string => `${(nanoseconds / 1000).toFixed(0)} µs`;
  say(`a running thread: ${running > 0 ? microseconds(running) : 'none was running'}`);
  say(`any thread: ${microseconds(longest)}`);
}

async function main(): Promise<void> {
  const begin = performance.now();
  const cache = path.join(packageRoot(), '.cache');
  fs.mkdirSync(cache, { recursive: true });

  step(`Make the patch for ${cves.join(' and ')} from Debian's packages (minutes the first time)`);
  const built = await buildOpensslPatch(cves, (message) => say(message));
  say(`${path.relative(packageRoot(), built.file)}, ${fs.statSync(built.file).size} bytes`);

  step('Publish it into a local, signed feed, and make an agent trust that feed');
  const directory = fs.mkdtempSync(path.join(cache, 'quickstart-'));
  const host = await LocalHost.create(directory, [built.file]);
  say(`feed: ${path.relative(packageRoot(), host.feedDirectory)}`);
  say(`all commands below run with --root ${host.root}`);

  step(`Start a process on the vulnerable libcrypto, ${built.runs}`);
  const program = await Program.start(fixtureProgram('openssl/two-cases'), [], {
    environment: { ...opensslEnvironment(built.unpacked), LOOP: '50' },
  });
  try {
    await showLiveFromVulnerableToFixedAndBack(host, program);
  } finally {
    await program.end();
  }
  fs.rmSync(directory, { recursive: true });
  say('');
  say(`All as expected, in ${((performance.now() - begin) / 1000).toFixed(0)} s.`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  // Leaving through process.exit() ends the started process as well.
  process.once(signal, () => process.exit(1));
}

try {
  await main();
} catch (error) {
  process.stderr.write(`\nquickstart: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
