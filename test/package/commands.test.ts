// Every command keeps to the same habits: help as a manual page, version, JSON, exit codes, manual page, completions.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  bashCompletion,
  describeProgram,
  fishCompletion,
  manualPage,
  wrappers,
  zshCompletion,
  type DescribedProgram,
} from '../../scripts/command-pages.mjs';
import { version } from '../../src/agent/index.js';
import { packageRoot } from '../../src/base/package-root.js';
import { pageWidth } from '../../src/cli/manual-page.js';

const read = (name: string): string => readFileSync(join(packageRoot(), name), 'utf8');
const { bin } = JSON.parse(read('package.json')) as { bin: Record<string, string> };
const names = Object.keys(bin);
const commands = names.filter((name) => !wrappers.includes(name));
const program = (name: string): string => join(packageRoot(), 'bin', name);
let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'kcare-commands-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function run(name: string, parameters: readonly string[], environment: Record<string, string> = {}) {
  return spawnSync(program(name), parameters, { encoding: 'utf8', env: { ...process.env, ...environment } });
}

const optionsOf = (described: DescribedProgram): string[] =>
  [described, ...described.commands].flatMap(({ options }) =>
    options.flatMap(({ short, long }) => [short, long].filter((flag) => flag !== undefined)),
  );

/** The lines of a section of a page. */
function sectionOf(help: string, title: string): string[] {
  const lines = help.split('\n');
  const start = lines.indexOf(title);
  const end = lines.findIndex((line, index) => index > start && /^\S/.test(line));
  return start < 0 ? [] : lines.slice(start + 1, end < 0 ? undefined : end);
}

/** What bash offers for the words of a line, the last of which is being completed. */
function completed(script: string, name: string, words: readonly string[]): string[] {
  const file = join(directory, 'completion.bash');
  writeFileSync(file, script);
  const shell = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _${name.replaceAll('-', '_')}; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const output = execFileSync('bash', ['-c', shell, 'bash', file, ...words], { encoding: 'utf8' });
  return output.split('\n').filter((line) => line !== '');
}

it('the compilers behind libcare-cc and libcare-c++ answer for themselves, and the documents say so', () => {
  for (const name of wrappers) {
    expect(run(name, ['--version']).status).toBe(0);
    expect(read('docs/exit-codes.md')).toContain(`\`${name}\``);
  }
});

describe.each(commands)('%s', (name) => {
  it('has help like a manual page, in 80 columns without a terminal, whatever the locale', () => {
    const pages = [{}, { LC_ALL: 'de_DE.UTF-8' }, { LC_ALL: 'C', COLUMNS: '200' }].map((environment) => {
      const { status, stdout, stderr } = run(name, ['--help'], environment);
      expect([status, stderr]).toEqual([0, '']);
      return stdout;
    });
    const [page = ''] = pages;
    expect(new Set(pages).size).toBe(1);
    const titles = ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXIT STATUS', 'EXAMPLES'];
    for (const title of titles) expect(sectionOf(page, title), title).not.toEqual([]);
    expect(page.split('\n').filter((line) => line.length > 80)).toEqual([]);
    expect(sectionOf(page, 'NAME')[0]?.trim()).toMatch(new RegExp(`^${name} - `));
  });

  it('says its version, and wrong options by exit code 64 without a stack', () => {
    expect(run(name, ['--version'])).toMatchObject({ status: 0, stdout: `${version()}\n`, stderr: '' });
    const { status, stdout, stderr } = run(name, ['--no-such-option-at-all']);
    expect([status, stdout]).toEqual([64, '']);
    expect(stderr).toMatch(/^error: .*option '--/);
    expect(stderr).not.toMatch(/^\s+at /m);
    const json = run(name, ['--no-such-option-at-all', '--json']);
    expect(json.status).toBe(64);
    expect(JSON.parse(json.stdout)).toMatchObject({ error: { code: 'USAGE' } });
  });

  it('documents --json, and exit codes that docs/exit-codes.md knows', () => {
    const described = describeProgram(name);
    const leaves = described.commands.length > 0 ? described.commands : [described];
    for (const leaf of leaves) expect(leaf.options.map(({ long }) => long)).toContain('--json');
    const document = read('docs/exit-codes.md');
    expect(document).toContain(name);
    const codes = sectionOf(described.help, 'EXIT STATUS').map((line) => line.trim());
    const numbers = codes.filter((line) => /^\d+$/.test(line));
    expect(numbers).toContain('0');
    expect(numbers).toContain('64');
    for (const code of numbers) expect(document, code).toMatch(new RegExp(`\\| ${code} +\\|`));
  });

  it('has a manual page that groff takes without a warning, with every option and section', () => {
    const described = describeProgram(name);
    const page = manualPage(described, version());
    const { status, stdout, stderr } = spawnSync('groff', ['-man', '-Tutf8', '-ww', '-P-cbou', '-rLL=78n'], {
      input: page,
      encoding: 'utf8',
    });
    expect([status, stderr.trim()]).toEqual([0, '']);
    for (const option of optionsOf(described)) expect(stdout.replaceAll('‐', '-')).toContain(option);
    for (const title of ['NAME', 'SYNOPSIS', 'EXIT STATUS'])
      expect(stdout).toMatch(new RegExp(`^${title}$`, 'm'));
  });

  it('has completions for bash, zsh and fish with every option', () => {
    const described = describeProgram(name);
    const bash = bashCompletion(described);
    expect(completed(bash, name, [name, '-']).sort()).toEqual(
      described.options
        .flatMap(({ short, long }) => [short, long].filter((flag) => flag !== undefined))
        .sort(),
    );
    for (const command of described.commands) {
      const offered = completed(bash, name, [name, command.name, '--']);
      for (const { long } of command.options) expect(offered).toContain(long);
    }
    for (const option of optionsOf(described)) {
      expect(zshCompletion(described)).toContain(`'*${option}[`);
      const plain = option.replace(/^-+/, '');
      expect(fishCompletion(described)).toMatch(new RegExp(` -[sl] ${plain}( |$)`, 'm'));
    }
  });

  it('lives with readers that close early', async () => {
    const child = spawn(program(name), ['--help'], { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.destroy();
    let errors = '';
    child.stderr.on('data', (text: Buffer) => (errors += text.toString()));
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    expect([code, errors]).toEqual([0, '']);
  });
});

it.each([
  ['kcarectl', '--lib-info'],
  ['kcarectl', '--lib-patch-info'],
  ['kcarectl', '--metrics'],
  ['kcare-uchecker', '--no-feed', '--json'],
  ['kcare-check', '--offline', '--json'],
  ['kcare-uname', '--all', '--json'],
  ['libcare-cron', 'show', '--json'],
])('%s %s keeps its exit code, and shows no stack, when nobody reads', (name, ...parameters) => {
  // `head -0` is gone before anything is written.
  const shell = '"$@" | head -0; exit "${PIPESTATUS[0]}"';
  const root = { ...process.env, KCARE_ROOT: directory };
  const { status, signal, stderr } = spawnSync('bash', ['-c', shell, 'bash', program(name), ...parameters], {
    encoding: 'utf8',
    env: root,
  });
  expect(signal).toBeNull();
  expect([0, 4, 5, 6], stderr).toContain(status);
  expect(stderr).not.toMatch(/^\s+at |EPIPE/m);
});

it('pages are as wide as the terminal, within reason', () => {
  expect([undefined, 80, 95, 300, 10].map(pageWidth)).toEqual([80, 80, 95, 100, 40]);
});
