// Brings a clone to the state in which everything runs: Debian packages, npm packages, programs built.
//
//   node scripts/setup.mjs [--test] [--lint]     also what only the tests, or only the checks of .ci/run, need
//
// Each step looks first whether it has anything to do; when none has, this takes well under a second.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const root = path.dirname(import.meta.dirname);
const inRoot = (...parts) => path.join(root, ...parts);

/** Why each one is needed: docs/DEPENDENCIES.md. */
const debianPackages = ['build-essential', 'libssl-dev', 'openssl', 'ca-certificates'];
const extraPackages = {
  '--test': [
    ...['gnupg', 'clang', 'cmake', 'meson', 'autoconf', 'automake', 'libtool', 'gdb'],
    ...['gawk', 'bison', 'gettext', 'python3', 'auditd'],
    ...['qemu-system-x86', 'busybox-static', 'lz4', 'xz-utils', 'libelf1', 'sparse'],
    ...['openscap-scanner', 'python3-prometheus-client'],
    ...['debootstrap', 'rpm', 'groff-base'],
  ],
  '--lint': ['clang-format', 'clang-tidy'],
};

class SetupFailure extends Error {}

/** Runs a long step; its output goes to a log, whose end is shown when it fails. */
function runStep(title, command, parameters, environment = {}) {
  const log = inRoot('.cache', 'logs', `${title.replace(/\W+/g, '-')}.log`);
  fs.mkdirSync(path.dirname(log), { recursive: true });
  process.stderr.write(`setup: ${title} ... `);
  const begin = Date.now();
  const output = fs.openSync(log, 'w');
  const { status, error } = spawnSync(command, parameters, {
    cwd: root,
    env: { ...process.env, ...environment },
    stdio: ['ignore', output, output],
  });
  fs.closeSync(output);
  const seconds = ((Date.now() - begin) / 1000).toFixed(1);
  if (status === 0) {
    process.stderr.write(`done in ${seconds} s\n`);
    return;
  }
  process.stderr.write(`failed after ${seconds} s\n`);
  const end = fs.readFileSync(log, 'utf8').trimEnd().split('\n').slice(-25).join('\n');
  throw new SetupFailure(
    `${error?.message ?? `${command} ended with status ${status}`}; the end of ${log}:\n${end}`,
  );
}

function missingDebianPackages(wanted) {
  const query = spawnSync('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...wanted], {
    encoding: 'utf8',
  });
  if (query.error) throw new SetupFailure('This is not a Debian system: dpkg-query is missing.');
  const installed = new Set(query.stdout.split('\n').filter((line) => line.endsWith(' installed')));
  return wanted.filter((name) => !installed.has(`${name} installed`));
}

function hasPackageLists() {
  const directory = '/var/lib/apt/lists';
  return (
    fs.existsSync(directory) && fs.readdirSync(directory).some((name) => /_Packages(\.\w+)?$/.test(name))
  );
}

function installDebianPackages(missing) {
  const parameters = ['install', '-y', '-q', '--no-install-recommends', ...missing];
  if (process.getuid() !== 0) {
    throw new SetupFailure(
      `Debian packages are missing. Run this again as root, or run: apt-get ${parameters.join(' ')}`,
    );
  }
  const environment = { DEBIAN_FRONTEND: 'noninteractive' };
  const update = () => runStep('fetch package lists', 'apt-get', ['update', '-q'], environment);
  const install = () =>
    runStep(`install Debian packages: ${missing.join(' ')}`, 'apt-get', parameters, environment);
  if (!hasPackageLists()) update();
  try {
    install();
  } catch {
    update();
    install();
  }
}

/** Whether node_modules holds exactly what package-lock.json names for this platform. */
function npmPackagesAreCurrent() {
  const hidden = inRoot('node_modules', '.package-lock.json');
  if (!fs.existsSync(hidden)) return false;
  const wanted = JSON.parse(fs.readFileSync(inRoot('package-lock.json'), 'utf8')).packages;
  const present = JSON.parse(fs.readFileSync(hidden, 'utf8')).packages;
  return Object.entries(wanted).every(
    ([place, { version, optional }]) =>
      place === '' || present[place]?.version === version || (optional && !present[place]),
  );
}

/** Everything a build depends on, by name, size and time of change. */
function fingerprint(inputs) {
  const hash = createHash('sha256');
  const visit = (file) => {
    const status = fs.statSync(file, { throwIfNoEntry: false });
    if (status?.isDirectory()) {
      for (const name of fs.readdirSync(file).sort()) visit(path.join(file, name));
    } else if (status) {
      hash.update(`${path.relative(root, file)} ${status.size} ${status.mtimeMs}\n`);
    }
  };
  inputs.forEach((input) => visit(inRoot(input)));
  return hash.digest('hex');
}

/** A step that makes `outputs` from `inputs`; it is done when the fingerprint of its last run still holds. */
function buildStep({ title, inputs, outputs, command }) {
  const stamp = inRoot('.cache', 'stamps', title.replace(/\W+/g, '-'));
  const isDone = () =>
    outputs.every((output) => fs.existsSync(inRoot(output))) &&
    fs.existsSync(stamp) &&
    fs.readFileSync(stamp, 'utf8') === fingerprint(inputs);
  const perform = () => {
    // Taken before the build: a file that changes meanwhile makes the next run build again.
    const before = fingerprint(inputs);
    runStep(title, ...command);
    fs.mkdirSync(path.dirname(stamp), { recursive: true });
    fs.writeFileSync(stamp, before);
  };
  return { isDone, perform };
}

function allSteps(parameters) {
  const wanted = [...debianPackages, ...parameters.flatMap((parameter) => extraPackages[parameter] ?? [])];
  return [
    {
      isDone: () => missingDebianPackages(wanted).length === 0,
      perform: () => installDebianPackages(missingDebianPackages(wanted)),
    },
    {
      isDone: npmPackagesAreCurrent,
      perform: () =>
        runStep('install npm packages', 'npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']),
    },
    buildStep({
      title: 'compile TypeScript',
      inputs: [
        'src',
        'bench',
        'demo',
        'fixtures',
        'tsconfig.json',
        'tsconfig.build.json',
        'scripts/bundle.mjs',
        'package-lock.json',
      ],
      outputs: ['dist/src/cli', 'dist/demo', 'dist/bundle/kcarectl'],
      command: ['npm', ['run', '--silent', 'build:ts']],
    }),
    buildStep({
      title: 'build the native engine',
      inputs: ['addon', 'scripts/build-addon.mjs', 'package-lock.json'],
      outputs: ['build/Release/kcare_engine.node', 'build/Release/kcare_guardian'],
      command: ['npm', ['run', '--silent', 'build:addon']],
    }),
    buildStep({
      title: 'build the fixtures',
      inputs: ['fixtures'],
      outputs: ['openssl/all-cases', 'glibc/all-cases', 'bench/threads', 'bench/calls'].map(
        (name) => `build/fixtures/${name}`,
      ),
      command: ['make', ['-j2', '-C', 'fixtures']],
    }),
  ];
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupFailure(`Node.js 20.19 or newer is needed; this is ${process.versions.node}.`);
  }
}

function setUp(parameters) {
  checkNode();
  const steps = allSteps(parameters);
  if (steps.every((step) => step.isDone())) return;
  if (!process.env.KCARE_SETUP_LOCKED) {
    // Two setups at once would delete each other's node_modules.
    fs.mkdirSync(inRoot('.cache'), { recursive: true });
    const self = [process.execPath, import.meta.filename, ...parameters];
    const { status } = spawnSync('flock', [inRoot('.cache', 'setup.lock'), ...self], {
      stdio: 'inherit',
      env: { ...process.env, KCARE_SETUP_LOCKED: '1' },
    });
    process.exitCode = status ?? 1;
    return;
  }
  for (const step of steps) {
    if (!step.isDone()) step.perform();
  }
}

try {
  setUp(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof SetupFailure)) throw error;
  process.stderr.write(`setup: ${error.message}\n`);
  process.exitCode = 1;
}
