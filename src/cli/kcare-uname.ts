// `kcare-uname`: uname with the release that the live-patched kernel is worth.
import { arch, hostname, machine, type, version as kernelVersion } from 'node:os';
import { Command } from 'commander';
import { kernelInfo, version } from '../agent/index.js';
import { exitCodes } from '../base/errors.js';
import { manualPage } from './manual-page.js';
import { printJson, printLine } from './print.js';
import { exitCodeOf } from './run-program.js';

const names = {
  kernelName: ['-s, --kernel-name', 'The name of the kernel (default).'],
  nodename: ['-n, --nodename', 'The name of this host.'],
  kernelRelease: ['-r, --kernel-release', 'The effective release of the kernel.'],
  kernelVersion: ['-v, --kernel-version', 'The version of the kernel that was booted.'],
  machine: ['-m, --machine', 'The hardware.'],
  processor: ['-p, --processor', 'The processor, or "unknown".'],
  hardwarePlatform: ['-i, --hardware-platform', 'The platform, or "unknown".'],
  operatingSystem: ['-o, --operating-system', 'The operating system.'],
} as const;
type Name = keyof typeof names;

const page = {
  name: 'kcare-uname - print what the live-patched kernel is worth',
  synopsis: 'kcare-uname [-a] [-s] [-n] [-r] [-v] [-m] [-p] [-i] [-o] [--json]',
  description: `kcare-uname prints what uname prints, but with the release that the patched kernel is worth; uname itself and /proc/version stay what they were when the machine was booted. KCARE_ROOT in the environment names another root directory.`,
  exit: `0
  Printed.
1
  Failed.
2
  What is kept about the kernel cannot be trusted.
64
  Wrong options.`,
  examples: `kcare-uname -r
  The effective release.
kcare-uname --all --json
  Everything, for programs.`,
};

process.exitCode = await exitCodeOf('kcare-uname', async () => {
  const program = new Command('kcare-uname')
    .option('-a, --all', 'All of it, but not what is unknown.')
    .option('--json', 'Print the chosen values by name, and errors, as JSON.')
    .version(version(), '--version', 'Print the version.')
    .helpOption('--help', 'Print this page.')
    .configureHelp({ formatHelp: manualPage(page) })
    .showHelpAfterError('See kcare-uname --help.')
    .exitOverride();
  for (const [flags, text] of Object.values(names)) program.option(flags, text);
  program.parse();
  const options = program.opts<Partial<Record<Name | 'all' | 'json', true>>>();
  const order = Object.keys(names) as Name[];
  const chosen = options.all
    ? order.filter((name) => name !== 'processor' && name !== 'hardwarePlatform')
    : order.filter((name) => options[name]);
  const shown = chosen.length > 0 ? chosen : (['kernelName'] as const);
  const { effective } = await kernelInfo(process.env['KCARE_ROOT'] ?? '/');
  const values: Readonly<Record<Name, string>> = {
    kernelName: type(),
    nodename: hostname(),
    kernelRelease: effective,
    kernelVersion: kernelVersion(),
    machine: machine() || arch(),
    processor: 'unknown',
    hardwarePlatform: 'unknown',
    operatingSystem: 'GNU/Linux',
  };
  if (options.json) printJson(Object.fromEntries(shown.map((name) => [name, values[name]])));
  else printLine(shown.map((name) => values[name]).join(' '));
  return exitCodes.done;
});
